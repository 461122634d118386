//! Digests of blobs.

use std::fmt;
use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256, Sha512};

/// `sha256:…` or `sha512:…`, validated: both parts are safe in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest {
    algorithm: &'static str,
    hex: String,
}

impl Digest {
    /// Reads one; `None` for what is none, or of an algorithm that is not known.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (algorithm, hex) = text.split_once(':')?;
        let (algorithm, digits) = match algorithm {
            "sha256" => ("sha256", 64),
            "sha512" => ("sha512", 128),
            _ => return None,
        };
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex.len() == digits && is_hex).then(|| Self { algorithm, hex: hex.into() })
    }

    /// Where a layout has the blob.
    pub(super) fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm, self.hex)
    }

    fn hasher(&self) -> Hasher {
        match self.algorithm {
            "sha512" => Hasher::Sha512(Sha512::new()),
            _ => Hasher::Sha256(Sha256::new()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex)
    }
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Reads bytes and compares them, once they are all read, with a digest.
pub(super) struct Checked<R> {
    inner: R,
    digest: Digest,
    hasher: Hasher,
}

impl<R: Read> Checked<R> {
    pub(super) fn new(inner: R, digest: &Digest) -> Self {
        Self { inner, digest: digest.clone(), hasher: digest.hasher() }
    }

    /// Reads what is left, and compares.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while self.read(&mut buffer)? > 0 {}
        let found = match self.hasher {
            Hasher::Sha256(state) => crate::seal::hex(&state.finalize()),
            Hasher::Sha512(state) => crate::seal::hex(&state.finalize()),
        };
        if found == self.digest.hex {
            return Ok(());
        }
        let algorithm = self.digest.algorithm;
        Err(io::Error::other(format!("its digest is {algorithm}:{found}, not {}", self.digest)))
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        let bytes = &buf[..read];
        match &mut self.hasher {
            Hasher::Sha256(state) => state.update(bytes),
            Hasher::Sha512(state) => state.update(bytes),
        }
        Ok(read)
    }
}

/// A reader behind a reference, for decoders that want to own theirs.
pub(super) struct Buffered<'r, R> {
    inner: &'r mut R,
    buffer: Vec<u8>,
    at: usize,
    len: usize,
}

impl<'r, R: Read> Buffered<'r, R> {
    pub(super) fn new(inner: &'r mut R) -> Self {
        Self { inner, buffer: vec![0; 256 << 10], at: 0, len: 0 }
    }
}

impl<R: Read> Read for Buffered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let len = there.len().min(buf.len());
        buf[..len].copy_from_slice(&there[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: Read> BufRead for Buffered<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.len {
            (self.at, self.len) = (0, self.inner.read(&mut self.buffer)?);
        }
        Ok(&self.buffer[self.at..self.len])
    }

    fn consume(&mut self, count: usize) {
        self.at = self.len.min(self.at + count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_that_are_safe_in_a_path_are_read() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(Digest::parse(&format!("sha256:{hex}")).is_some());
        for bad in [
            format!("sha512:{hex}"),
            format!("md5:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{}", &hex[1..]),
            hex.clone(),
        ] {
            assert_eq!(Digest::parse(&bad), None, "{bad}");
        }
    }
}
