//! The query of an address, `a=b&c=d`: with `+` for a space, and `%XX` for bytes.

/// The parameters of `query`, in their order. The error says what is wrong with it.
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// The query that means these parameters.
pub fn query<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = parameters.into_iter().map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// `text` as a value in a query: an address with a query of its own, perhaps.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | '&' | '#' | '+' | '=' | '?' | ' ' => encoded += &format!("%{:02X}", u32::from(c)),
            c => encoded.push(c),
        }
    }
    encoded
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let hex = [rest.next(), rest.next()].map(|digit| digit.and_then(|d| char::from(d).to_digit(16)));
                let [Some(high), Some(low)] = hex else {
                    return Err(format!("in {text:?} a % is not followed by two hexadecimal digits"));
                };
                bytes.push((high * 16 + low) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8 once it is decoded"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let odd = [("a", "b c&d=e%f+g?h#ä/~"), ("secondary[0]", "grpc://h?ca=/x&compress=true"), ("empty", "")];
        let read = parameters(&query(odd)).unwrap();
        assert_eq!(read, odd.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(parameters("x&&y=1+2%2b").unwrap(), parameters("x=&y=1%202%2B").unwrap());
    }
}
