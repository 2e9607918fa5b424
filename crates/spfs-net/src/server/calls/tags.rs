//! The methods about tags: each for who has the right to it.

use bytes::Bytes;
use spfs_repo::{Digest, Error, Repository, Result, TagListing, TagName, TagSpec};

use super::answer::{no_method, refused};
use super::{Call, Called};
use crate::server::tokens::{Right, tag_path};
use crate::{convert, proto};

impl Call<'_> {
    /// The methods about tags.
    pub(super) fn run_tags(&self, path: &str, body: Bytes) -> Called {
        match path {
            "/spfs.TagService/LsTags" => self.answer(body, |r: proto::LsTagsRequest| {
                let tags = self.list(&r.namespace, r.path.trim_matches('/'))?;
                Ok(proto::EntryList { entries: tags.into_iter().map(list_entry).collect() })
            }),
            "/spfs.TagService/ResolveTag" => self.answer(body, |r: proto::ResolveTagRequest| {
                let spec: TagSpec = r.tag_spec.parse()?;
                self.tag(Right::Read, &r.namespace, &spec.name, |tags| {
                    let history = tags.history(&spec.name)?;
                    let record = usize::try_from(spec.version).ok().and_then(|version| history.get(version));
                    record.map(convert::tag).ok_or_else(|| unknown(&r.tag_spec))
                })
            }),
            "/spfs.TagService/FindTags" => self.answer(body, |r: proto::FindTagsRequest| {
                let digest = convert::read_digest(r.digest.as_ref())?;
                self.find_tags(&r.namespace, &digest)
            }),
            "/spfs.TagService/IterTagSpecs" => self.answer(body, |r: proto::IterTagSpecsRequest| {
                let names = self.tag_names(&r.namespace)?;
                Ok(proto::Texts { texts: names.iter().map(ToString::to_string).collect() })
            }),
            "/spfs.TagService/ReadTag" => self.answer(body, |r: proto::TagStreamRequest| {
                let spec: TagSpec = r.tag_spec.parse()?;
                let history = self.tag(Right::Read, &r.namespace, &spec.name, |tags| tags.history(&spec.name))?;
                if history.is_empty() {
                    return Err(unknown(&r.tag_spec));
                }
                Ok(proto::TagList { tags: history.iter().map(convert::tag).collect() })
            }),
            "/spfs.TagService/InsertTag" => self.on_tag(body, Right::Tag, |tags, tag| tags.insert_tag(tag)),
            "/spfs.TagService/RemoveTag" => self.on_tag(body, Right::Delete, |tags, tag| tags.remove_tag(tag)),
            "/spfs.TagService/RemoveTagStream" => self.answer(body, |r: proto::TagStreamRequest| {
                let name = r.tag_spec.parse::<TagSpec>()?.name;
                self.tag(Right::Delete, &r.namespace, &name, |tags| tags.remove_tag_stream(&name))?;
                Ok(proto::Ok {})
            }),
            "/spfs.Exchange/PushTag" => self.answer(body, |r: proto::TagRequest| {
                let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
                self.tag(Right::Tag, &r.namespace, &tag.name, |tags| Ok(convert::tag(&tags.push_tag(&tag)?)))
            }),
            _ => Err(no_method(path)),
        }
    }

    /// The repository with its tags in `namespace`; empty means the one that is served.
    fn tags<T>(&self, namespace: &str, act: impl FnOnce(&dyn Repository) -> Result<T>) -> Result<T> {
        match namespace {
            "" => act(self.repository),
            name => act(&*self.repository.in_namespace(Some(name))?),
        }
    }

    /// The same, for who has this right to the tag.
    fn tag<T>(
        &self,
        right: Right,
        namespace: &str,
        name: &TagName,
        act: impl FnOnce(&dyn Repository) -> Result<T>,
    ) -> Result<T> {
        let path = tag_path(namespace, name.as_str());
        let allowed = self.who.tag(right, &path);
        if right != Right::Read {
            *self.subject.borrow_mut() = Some(path);
        }
        allowed.map_err(refused)?;
        self.tags(namespace, act)
    }

    fn on_tag(&self, body: Bytes, right: Right, act: fn(&dyn Repository, &spfs_repo::Tag) -> Result<()>) -> Called {
        self.answer(body, |r: proto::TagRequest| {
            let tag = convert::read_tag(&r.tag.unwrap_or_default())?;
            self.tag(right, &r.namespace, &tag.name, |tags| act(tags, &tag))?;
            Ok(proto::Ok {})
        })
    }

    /// What may be read directly below `folder`, which has no `/` at its ends.
    fn list(&self, namespace: &str, folder: &str) -> Result<Vec<TagListing>> {
        if folder.split('/').any(|part| matches!(part, "." | "..") || (part.is_empty() && !folder.is_empty())) {
            return Err(Error::invalid("tag folder", folder, "a part of it is no name"));
        }
        let above = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut found = self.tags(namespace, |tags| tags.list_tags(folder))?;
        found.retain(|listing| match listing {
            TagListing::Tag(name) => self.who.reads(&tag_path(namespace, &format!("{above}{name}"))),
            TagListing::Folder(name) => self.who.reads_below(&tag_path(namespace, &format!("{above}{name}/"))),
            TagListing::Namespace(name) => self.who.reads_below(&tag_path(name, "")),
        });
        Ok(found)
    }

    /// The tags that may be read.
    fn tag_names(&self, namespace: &str) -> Result<Vec<TagName>> {
        let mut names = self.tags(namespace, |tags| tags.tag_names())?;
        names.retain(|name| self.who.reads(&tag_path(namespace, name.as_str())));
        Ok(names)
    }

    fn find_tags(&self, namespace: &str, digest: &Digest) -> Result<proto::Texts> {
        let mut texts = Vec::new();
        for name in self.tag_names(namespace)? {
            for (version, record) in (0..).zip(self.tags(namespace, |tags| tags.history(&name))?) {
                if record.target == *digest {
                    texts.push(TagSpec { name: name.clone(), version }.to_string());
                }
            }
        }
        Ok(proto::Texts { texts })
    }
}

fn list_entry(listing: TagListing) -> proto::ListEntry {
    let kind = match listing {
        TagListing::Folder(name) => proto::ListKind::Folder(name),
        TagListing::Tag(name) => proto::ListKind::Tag(name),
        TagListing::Namespace(name) => proto::ListKind::Namespace(name),
    };
    proto::ListEntry { kind: Some(kind) }
}

fn unknown(reference: &str) -> Error {
    Error::UnknownReference { reference: reference.to_owned(), searched: Vec::new(), similar: Vec::new() }
}
