//! The 256-bit blake3 digest that names every blob, tree and action key.
//!
//! Invariants: its text form is 64 lower-case hexadecimal digits, everywhere; two digests of different things (a tree,
//! a key, a blob) never come from the same bytes, because all but blobs begin with a domain tag of their own.

use crate::file_digest::digest_of_file;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;

/// How much is read at a time: enough for rayon to share out, little enough to stay in the caches.
const CHUNK: usize = 1 << 20;

/// A blake3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest whose bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of a file's content; big files are hashed by all threads.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        digest_of_file(path).map(|(digest, _)| digest)
    }

    /// Its text form, without an allocation.
    pub(crate) fn hex(&self) -> impl Deref<Target = str> + use<> {
        blake3::Hash::from_bytes(self.0).to_hex()
    }

    /// The first ten hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..10].to_owned()
    }
}

/// Copies `source` to `target`; what passes by is hashed, by one thread while another writes it where it is much. Returns
/// its digest and how many bytes it was.
pub(crate) fn copy_and_hash(source: &mut dyn Read, target: &mut (dyn Write + Send)) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        if Read::take(&mut *source, CHUNK as u64).read_to_end(&mut chunk)? == 0 {
            return Ok((Digest(*hasher.finalize().as_bytes()), hasher.count()));
        }
        if chunk.len() == CHUNK {
            let (_, written) = rayon::join(|| hasher.update_rayon(&chunk), || target.write_all(&chunk));
            written?;
        } else {
            hasher.update(&chunk);
            target.write_all(&chunk)?;
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no digest: 64 lower-case hexadecimal digits were expected")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let mut bytes = [0; 32];
        // Otherwise capitals, and a prefix `0x`, are read too.
        let is_exact = text.len() == 2 * bytes.len() && !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match const_hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_exact => Ok(Self(bytes)),
            Ok(()) | Err(_) => Err(ParseDigestError(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DigestText)
    }
}

/// Reads the text of a digest where it lies.
struct DigestText;

impl de::Visitor<'_> for DigestText {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest of 64 lower-case hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_json_round_trip_and_refuse_everything_else() {
        let digest = Digest::of_bytes(b"abc");
        assert_eq!(
            digest.to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        assert_eq!(digest.short(), "6437b3ac38");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for wrong in [
            "",
            "6437",
            &digest.to_string().to_uppercase(),
            &digest.to_string()[1..],
            &format!("0x{digest}"),
            &format!("0x{}", &digest.to_string()[2..]),
            &"é".repeat(32),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_copied_is_hashed_whatever_its_size() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let mut copy = Vec::new();
            let copied = copy_and_hash(&mut &bytes[..], &mut copy).unwrap();
            assert_eq!(copied, (Digest::of_bytes(&bytes), size as u64));
            assert_eq!(copy, bytes);
        }
    }
}
