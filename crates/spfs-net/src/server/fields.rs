//! Messages that are read field by field, so that many small fields do not become many structs at once.

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};

/// The only message in a framed body, not decoded.
pub fn single(mut body: Bytes) -> Result<Bytes, String> {
    if body.len() < 5 {
        return Err("there is no message".to_owned());
    }
    let compressed = body.get_u8();
    let len = body.get_u32() as usize;
    match () {
        () if compressed != 0 => Err("a message is compressed, which was not agreed".to_owned()),
        () if len > body.len() => Err("a message ends before its length".to_owned()),
        () if len < body.len() => Err("there is more than one message".to_owned()),
        () => Ok(body),
    }
}

/// Takes the next field off `message`, whose fields are all bytes: its number and its content.
pub fn next(message: &mut Bytes) -> Result<Option<(u32, Bytes)>, String> {
    if message.is_empty() {
        return Ok(None);
    }
    let (number, kind) = decode_key(message).map_err(|e| e.to_string())?;
    if kind != WireType::LengthDelimited {
        return Err(format!("the field {number} is of another type"));
    }
    let len = decode_varint(message).ok().and_then(|len| usize::try_from(len).ok());
    let len = len.filter(|len| *len <= message.len()).ok_or("a field ends before its length")?;
    Ok(Some((number, message.split_to(len))))
}

/// Whether a `WriteObjectRequest` has its object in parts and not as one buffer, which no client of today sends.
pub fn is_in_parts(mut request: Bytes) -> bool {
    let buffer = |mut object: Bytes| loop {
        match next(&mut object) {
            Ok(Some((7, _))) => {}
            Ok(None) => return true,
            _ => return false,
        }
    };
    loop {
        match next(&mut request) {
            Ok(Some((1, object))) if buffer(object.clone()) => {}
            Ok(None) => return false,
            _ => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_parts_are_told_from_buffers() {
        let parts = |bytes: &'static [u8]| is_in_parts(Bytes::from_static(bytes));
        assert!(!parts(&[0x0a, 3, 0x3a, 1, 9]));
        assert!(!parts(&[]));
        assert!(parts(&[0x0a, 2, 0x1a, 0]), "a manifest");
        assert!(parts(&[0x0a, 5, 0x3a, 1, 9, 0x1a, 0]), "both");
        assert!(parts(&[0x0a, 2, 0x30, 1]), "a mask");
        assert!(parts(&[0x0a, 9, 0x3a]), "cut short");
    }
}
