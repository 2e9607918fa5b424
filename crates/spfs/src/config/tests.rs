//! Precedence, both forms of variables, warnings, and what `spfs config` shows.
#![allow(clippy::unwrap_used)]

use std::fs;

use super::*;

/// A home directory with these files in it; `/etc` is `<home>/etc`.
fn home(files: &[(&str, &str)]) -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let env = Env::bare(dir.path());
    (dir, env)
}

#[test]
fn defaults_do_not_depend_on_sections() {
    for files in [&[][..], &[("etc/spfs.toml", "[filesystem]\ntmpfs_size = \"1G\"\n")][..]] {
        let (dir, env) = home(files);
        let config = Config::load(&env).unwrap();
        assert_eq!(config.storage.root, Some(dir.path().join(".local/share/spfs")));
        assert_eq!(config.filesystem.annotation_size_limit, 16384);
        assert_eq!(config.filesystem.secondary_repositories, ["origin"]);
        assert_eq!(config.cache.max_size, None);
        assert_eq!(config.storage.format, Format::default());
        assert_eq!(config.warnings, []);
    }
}

#[test]
fn later_sources_are_stronger() {
    let (_dir, mut env) = home(&[]);
    let root = |env: &Env| Config::load(env).unwrap().storage.root.unwrap();
    let steps = [
        ("etc/spfs.conf", "[storage]\nroot = /1\n", "/1"),
        ("etc/spfs.yml", "storage: {root: /2}\n", "/2"),
        (".config/spfs/spfs.conf", "[storage]\nroot=/3\n", "/3"),
        (".config/spfs/spfs.ini", "[storage]\nroot=/4\n", "/4"),
        (".config/spfs/spfs.json", "{\"storage\": {\"root\": \"/5\"}}", "/5"),
        (".config/spfs/spfs.toml", "[storage]\nroot = '/6'\n", "/6"),
    ];
    for (file, text, expected) in steps {
        let path = env.home.clone().unwrap().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        assert_eq!(root(&env), Path::new(expected), "{file}");
    }
    for (variable, value, expected) in [
        ("XDG_CONFIG_HOME", "/nonexistent", "/2"),
        ("SPFS_STORAGE__ROOT", "~/7", "HOME/7"),
        ("SPFS_STORAGE_ROOT", "/8", "/8"),
    ] {
        env = env.with_var(variable, value);
        let expected = expected.replace("HOME", env.home.as_ref().unwrap().to_str().unwrap());
        assert_eq!(root(&env), Path::new(&expected), "{variable}");
    }
}

#[test]
fn both_forms_set_every_key() {
    let (_dir, env) = home(&[]);
    for key in keys::KEYS {
        let text = match key.holds {
            keys::Holds::Text | keys::Holds::Path | keys::Holds::List => "/x",
            keys::Holds::Bool => "true",
            keys::Holds::Count(_) => "77",
            keys::Holds::Size | keys::Holds::TmpfsSize => "1M",
            keys::Holds::Choice(choices) => choices[1],
        };
        for variable in keys::variables(key.name) {
            let env = env.clone().with_var(&variable, text);
            let config = Config::load(&env).unwrap();
            assert_eq!(config.warnings, [], "{variable}");
            let setting = config.settings(&env).into_iter().find(|s| s.key == key.name).unwrap();
            assert_eq!(setting.origin, Origin::Variable(variable));
            assert_eq!(setting.value, Value::from_text(key, text).ok());
        }
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let (_dir, env) = home(&[]);
    let error = Config::load(&env.with_var("SPFS_FILESYSTEM_TMPFS_SIZE", "0")).unwrap_err();
    assert!(error.to_string().contains("SPFS_FILESYSTEM_TMPFS_SIZE"), "{error}");
}

#[test]
fn unknown_names_warn_and_suggest() {
    let (dir, env) = home(&[(".config/spfs/spfs.toml", "[storage]\nrot = '/1'\n"), (".config/spfs/spfs.ron", "()")]);
    let env = env.with_var("SPFS_STORAGE_ROT", "x").with_var("SPFS_RUNTIME", "r").with_var("SPFS_USER", "u");
    let config = Config::load(&env).unwrap();
    let text: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let file = dir.path().join(".config/spfs");
    assert_eq!(
        text,
        [
            format!("unknown key \"storage.rot\" in {}/spfs.toml; did you mean storage.root?", file.display()),
            format!("{}/spfs.ron is not read: this format is not supported; write spfs.toml", file.display()),
            "unknown environment variable SPFS_STORAGE_ROT; did you mean SPFS_STORAGE_ROOT?".to_owned(),
            "unknown environment variable SPFS_USER; did you mean SPFS_USER_NAME?".to_owned(),
        ]
    );
}

#[test]
fn a_second_file_is_not_read_silently() {
    let (dir, env) = home(&[("etc/spfs.toml", ""), ("etc/spfs.yaml", "a: [")]);
    let config = Config::load(&env).unwrap();
    let file = dir.path().join("etc/spfs.yaml");
    assert!(matches!(&config.warnings[..], [Warning::UnreadFile { file: f, .. }] if *f == file));
}

#[test]
fn remotes_come_from_files_and_variables() {
    let toml = "[remote.origin]\naddress = 'file:/o'\n[remote.My-Site]\nscheme = 'grpc'\ntimeout_ms = 5\n[remote.half]\nlazy = true\n";
    let (_dir, env) = home(&[("etc/spfs.toml", toml)]);
    let env = env
        .with_var("SPFS_REMOTE_ORIGIN_ADDRESS", "file:/p")
        .with_var("SPFS_REMOTE__MY_SITE__TAG_NAMESPACE", "ns")
        .with_var("SPFS_REMOTE_NEW_ONE_SCHEME", "TAR");
    let config = Config::load(&env).unwrap();
    assert_eq!(config.warnings, [Warning::IncompleteRemote { name: "half".to_owned() }]);
    assert_eq!(config.remotes.keys().collect::<Vec<_>>(), ["My-Site", "new_one", "origin"]);
    assert_eq!(config.remotes["origin"].address.as_deref(), Some("file:/p"));
    assert_eq!(config.remotes["new_one"].scheme.as_deref(), Some("tar"));
    let site = &config.remotes["My-Site"];
    assert_eq!(site.options["timeout_ms"], Value::Number(5));
    assert_eq!(site.options["tag_namespace"], Value::Text("ns".to_owned()));
}

#[test]
fn the_effective_configuration_has_every_key() {
    let (_dir, env) = home(&[("etc/spfs.toml", "[remote.'a.b']\naddress = 'file:/o'\n")]);
    let config = Config::load(&env).unwrap();
    let json = config.to_json(&env);
    for key in keys::KEYS {
        assert!(json.pointer(&format!("/{}", key.name.replace('.', "/"))).is_some(), "{}", key.name);
    }
    assert_eq!(json["remote"]["a.b"]["address"], "file:/o");
    assert_eq!(json["user"]["domain"], "localhost");
    assert_eq!(json["filesystem"]["annotation_size_limit"], 16384);
    assert_eq!(json["environment"]["variable_names_to_preserve"], serde_json::json!([]));
}

#[test]
fn without_a_home_the_repository_needs_a_place() {
    let (_dir, env) = home(&[]);
    let env = Env { home: None, ..env };
    assert!(Config::load(&env).unwrap().storage_root().unwrap_err().to_string().contains("SPFS_STORAGE_ROOT"));
    let relative = Config::load(&env.clone().with_var("SPFS_STORAGE_ROOT", "r")).err().unwrap();
    assert_eq!(
        relative.to_string(),
        "invalid configuration in SPFS_STORAGE_ROOT: storage.root = \"r\" must be an absolute path, or begin with ~/"
    );
    let env = env.with_var("SPFS_STORAGE_ROOT", "/r");
    assert_eq!(Config::load(&env).unwrap().storage_root().unwrap(), Path::new("/r"));
}

#[test]
fn a_remote_may_be_a_directory_below_the_home() {
    let toml = "[remote.origin]\nscheme = 'fs'\npath = '~/shared'\ncreate = true\n";
    let (dir, env) = home(&[("etc/spfs.toml", toml)]);
    let spfs = crate::Spfs::open(env.clone(), Config::load(&env).unwrap()).unwrap();
    let opened = crate::remotes::open(&spfs, Some("origin")).unwrap();
    assert_eq!(opened.as_directory().unwrap().root(), fs::canonicalize(dir.path()).unwrap().join("shared"));
}

#[test]
fn every_key_is_documented() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md")).unwrap();
    for key in keys::KEYS.iter().chain(keys::REMOTE_KEYS) {
        assert!(page.contains(&format!("| `{}` |", key.name)), "{} is not in docs/configuration.md", key.name);
        assert!(
            key.default.is_empty() || page.contains(&format!("`{}`", key.default)),
            "{}: {}",
            key.name,
            key.default
        );
    }
}

#[test]
fn a_check_says_all_that_is_wrong() {
    let toml = "[remote.a]\naddress = 'proxy:?primary=a'\nadress = 1\n[remote.b]\naddress = 's3:/x'\n\
                [filesystem]\nsecondary_repositories = ['orgin', 'a']\n[remote.orgin2]\naddress='/o'\n";
    let files = [("etc/spfs.toml", toml), ("etc/spfs.conf", "what"), (".config/spfs/spfs.json", "{")];
    let (_dir, env) = home(&files);
    let checked = Config::check(&env.with_var("SPFS_FUSE_WORKER_THREADS", "none"));
    let said: Vec<String> = checked.errors.iter().map(ToString::to_string).collect();
    assert_eq!(checked.files.len(), 3);
    for (part, count) in
        [("spfs.conf:1:1", 1), ("spfs.json:1:", 1), ("SPFS_FUSE_WORKER_THREADS", 1), ("a -> a", 1), ("s3:", 1)]
    {
        assert_eq!(said.iter().filter(|text| text.contains(part)).count(), count, "{part}: {said:#?}");
    }
    assert!(said.iter().any(|text| text.contains("did you mean orgin2?")), "{said:#?}");
    assert_eq!(said.len(), 6, "{said:#?}");
    let warning = checked.warnings[0].to_string();
    assert!(
        warning.contains("\"remote.a.adress\"") && warning.ends_with("did you mean remote.a.address?"),
        "{warning}"
    );
}
