//! What archives are packed with, known by their first bytes; and what is no tar archive, by name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::header::{Found, Header};

/// Bytes of the beginning that tell what something is.
const START: usize = 512;
/// Kibibytes of memory that xz and its relatives may take.
const MEMORY: u32 = 1 << 20;

/// What makes bytes of packed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Packing {
    /// gzip (RFC 1952), of one member or several.
    Gzip,
    /// Zstandard (RFC 8878), of one frame or several.
    Zstd,
    /// xz.
    Xz,
    /// `.lzma`, what xz was before.
    Lzma,
    /// lzip.
    Lzip,
    /// bzip2.
    Bzip2,
    /// LZ4 frames, also in the form that kernels have.
    Lz4,
}

impl Packing {
    /// By the first bytes, if they are packed by one of these.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'L', b'Z', b'I', b'P', ..] => Self::Lzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [0x5d, 0, 0, _, _, size @ ..] if matches!(size.get(7), Some(0 | 0xff)) => Self::Lzma,
            _ => return None,
        })
    }

    /// As people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lzip => "lzip",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
        }
    }

    /// The bytes that `packed` stands for. Errors name the packing.
    ///
    /// # Errors
    /// No memory for the decoder.
    pub fn unpack<'r>(self, packed: Box<dyn BufRead + 'r>) -> io::Result<Box<dyn Read + 'r>> {
        let inner: Box<dyn Read + 'r> = match self {
            Self::Gzip => Box::new(Gzip { decoder: None, rest: Some(packed) }),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(packed, true, MEMORY)),
            Self::Lzma => Box::new(Lzma(Some(lzma_rust2::LzmaReader::new_mem_limit(packed, MEMORY, None)?))),
            Self::Lzip => Box::new(lzma_rust2::LzipReader::new(packed)),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Self::Lz4 => Box::new(Lz4(Some(lz4_flex::frame::FrameDecoder::new(Lz4Frame::new(packed))))),
        };
        Ok(Box::new(Named { name: self.name(), inner }))
    }
}

/// Names the packing in errors.
struct Named<'r> {
    name: &'static str,
    inner: Box<dyn Read + 'r>,
}

impl Read for Named<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(error.kind(), format!("is cut off: its {} data does not end", self.name))
            }
            kind => io::Error::new(kind, format!("its {} data is broken: {error}", self.name)),
        })
    }
}

/// All members of a gzip file; zeros behind the last one, as tapes have them, are nothing.
struct Gzip<R> {
    decoder: Option<flate2::bufread::GzDecoder<R>>,
    /// What is packed, between two members.
    rest: Option<R>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                let read = decoder.read(buf)?;
                if read > 0 || buf.is_empty() {
                    return Ok(read);
                }
                self.rest = self.decoder.take().map(flate2::bufread::GzDecoder::into_inner);
            }
            let Some(rest) = &mut self.rest else { return Ok(0) };
            match rest.fill_buf()?.first() {
                None => return Ok(0),
                Some(0x1f) => self.decoder = self.rest.take().map(flate2::bufread::GzDecoder::new),
                Some(0) => rest.consume(1),
                Some(_) => return Err(something_follows()),
            }
        }
    }
}

fn something_follows() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "something else follows it")
}

/// The one stream of a `.lzma` file, until it has ended.
struct Lzma<R>(Option<lzma_rust2::LzmaReader<R>>);

impl<R: BufRead> Read for Lzma<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.0 else { return Ok(0) };
        let read = reader.read(buf)?;
        if read > 0 || buf.is_empty() {
            return Ok(read);
        }
        let Some((mut rest, unread)) = self.0.take().map(lzma_rust2::LzmaReader::into_parts) else {
            return Ok(0);
        };
        let is_end = unread.is_empty() && rest.fill_buf()?.is_empty();
        if is_end { Ok(0) } else { Err(something_follows()) }
    }
}

/// All frames of an LZ4 file: the decoder ends with each; none at the end.
struct Lz4<R: Read>(Option<lz4_flex::frame::FrameDecoder<Lz4Frame<R>>>);

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let read = decoder.read(buf)?;
            if read > 0 || buf.is_empty() {
                return Ok(read);
            }
            let frame = decoder.get_mut();
            // The decoder takes the end of what there is for the end of a frame.
            if frame.is_cut() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if frame.packed.fill_buf()?.is_empty() {
                self.0 = None;
            } else {
                // Blocks of the next may be of another size, which a decoder that has buffers does not count with.
                let packed = self.0.take().map(|decoder| decoder.into_inner().packed);
                self.0 = packed.map(|packed| lz4_flex::frame::FrameDecoder::new(Lz4Frame::new(packed)));
            }
        }
        Ok(0)
    }
}

/// What a frame of an LZ4 file is read from, and how far that went.
struct Lz4Frame<R> {
    packed: R,
    /// The first byte of the frame.
    first: Option<u8>,
    /// Whether the last bytes were fewer than was asked for.
    is_short: bool,
    /// Whether there were no more when more was asked for.
    is_over: bool,
}

impl<R> Lz4Frame<R> {
    fn new(packed: R) -> Self {
        Self { packed, first: None, is_short: false, is_over: false }
    }

    /// Whether a frame that was read to its end has none. One in the form that kernels have ends with the file.
    fn is_cut(&self) -> bool {
        self.is_over && (self.first == Some(0x04) || self.is_short)
    }
}

impl<R: Read> Read for Lz4Frame<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.packed.read(buf)?;
        match buf.get(..read) {
            Some([first, ..]) => {
                self.first.get_or_insert(*first);
                self.is_short = read < buf.len();
            }
            _ => self.is_over |= !buf.is_empty(),
        }
        Ok(read)
    }
}

/// What the first bytes are of, if they are of something that is no tar archive and is known.
#[must_use]
pub fn foreign(start: &[u8]) -> Option<&'static str> {
    Some(match start {
        [0x1f, 0x9d | 0xa0, ..] => "data packed by compress (.Z)",
        [0x89, b'L', b'Z', b'O', 0, ..] => "data packed by lzop",
        [b'P', b'K', 3 | 5, 4 | 6, ..] => "a zip archive",
        [b'7', b'z', 0xbc, 0xaf, ..] => "a 7-Zip archive",
        [b'R', b'a', b'r', b'!', ..] => "a RAR archive",
        [b'x', b'a', b'r', b'!', ..] => "a xar archive",
        [b'0', b'7', b'0', b'7', b'0', b'1' | b'2' | b'7', ..] | [0xc7, 0x71, ..] | [0x71, 0xc7, ..] => {
            "a cpio archive"
        }
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "an ar archive, as packages of Debian are",
        [0xed, 0xab, 0xee, 0xdb, ..] => "a package of RPM",
        [b'h', b's', b'q', b's', ..] | [b's', b'q', b's', b'h', ..] => "a file system of squashfs",
        [b'Q', b'F', b'I', 0xfb, ..] => "a disk image of QEMU (qcow2)",
        [0x7f, b'E', b'L', b'F', ..] => "a program",
        _ => return None,
    })
}

/// Whether something begins with the header of a member: then it is no other thing, whatever the member is called.
#[must_use]
pub fn is_tar(start: &[u8]) -> bool {
    let block = start.get(..START).and_then(|start| start.try_into().ok());
    block.is_some_and(|block| matches!(Header::find(block), Found::Header(_)))
}

/// What something is that is known, and is no archive as it lies there.
fn other(start: &[u8]) -> Option<&'static str> {
    if is_tar(start) {
        return None;
    }
    Packing::of(start).map(Packing::name).or_else(|| foreign(start))
}

/// Reads the beginning of something, and gives it whole again.
fn look<'r>(mut source: Box<dyn BufRead + 'r>) -> io::Result<(Vec<u8>, Box<dyn BufRead + 'r>)> {
    let mut start = Vec::new();
    source.by_ref().take(START as u64).read_to_end(&mut start)?;
    let whole = io::Cursor::new(start.clone()).chain(source);
    Ok((start, Box::new(whole)))
}

/// The bytes of `source`, unpacked as often as they are packed (four times at most).
///
/// # Errors
/// Those of reading; what is no archive and is known, by name.
pub fn unpacked<'r>(source: Box<dyn BufRead + 'r>) -> io::Result<Box<dyn BufRead + 'r>> {
    let (mut start, mut source) = look(source)?;
    for _ in 0..4 {
        let Some(packing) = Packing::of(&start).filter(|_| !is_tar(&start)) else { break };
        let unpacked = packing.unpack(source)?;
        (start, source) = look(Box::new(BufReader::with_capacity(1 << 16, unpacked)))?;
    }
    match other(&start) {
        Some(what) => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("is {what}, and no tar archive")))
        }
        None => Ok(source),
    }
}

/// An archive as a file that can be sought in.
#[derive(Debug)]
pub struct Opened {
    /// The archive, unpacked.
    pub file: File,
    /// Its bytes.
    pub len: u64,
    /// Whether it lies on a device, where older data may follow its end.
    pub is_device: bool,
}

/// Opens the archive at `path`; `-` is the standard input. A plain file is read where it lies, what is packed or cannot
/// be sought in goes through a file without a name in `spool`.
///
/// # Errors
/// As [`unpacked`].
pub fn open(path: &Path, spool: &Path) -> io::Result<Opened> {
    use std::io::Seek as _;
    use std::os::unix::fs::FileTypeExt as _;
    if path != Path::new("-") {
        let mut file = File::open(path)?;
        let kind = file.metadata()?.file_type();
        let is_device = kind.is_block_device();
        if kind.is_file() || is_device {
            let len = file.seek(io::SeekFrom::End(0))?;
            file.rewind()?;
            let mut start = Vec::new();
            file.by_ref().take(START as u64).read_to_end(&mut start)?;
            file.rewind()?;
            if other(&start).is_none() {
                return Ok(Opened { file, len, is_device });
            }
        }
        return spooled(Box::new(BufReader::with_capacity(1 << 16, file)), spool);
    }
    spooled(Box::new(io::stdin().lock()), spool)
}

/// What `source` has, unpacked, in a file without a name in the folder `spool`.
///
/// # Errors
/// As [`unpacked`], and those of writing.
pub fn spooled(source: Box<dyn BufRead + '_>, spool: &Path) -> io::Result<Opened> {
    let mut source = unpacked(source)?;
    let mut file = nameless(spool)?;
    let len = copy(&mut source, &mut file)?;
    Ok(Opened { file, len, is_device: false })
}

/// Copies all bytes of `source` to the end of `file`, in large pieces.
pub(crate) fn copy(source: &mut dyn Read, file: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut copied = 0;
    loop {
        let read = match source.read(&mut buffer) {
            Ok(0) => return Ok(copied),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        io::Write::write_all(file, &buffer[..read])?;
        copied += read as u64;
    }
}

/// A file without a name in a folder, for reading and writing.
///
/// # Errors
/// Those of making it.
pub fn nameless(folder: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    use rustix::io::Errno;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(CWD, folder, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        // A file system that has no such files: make one with a name and take the name away.
        Err(_) => {
            let mut nr = 0_u32;
            loop {
                let path = folder.join(format!(".e2dax-{}.{nr}", std::process::id()));
                match openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
                    // Left over from somebody who was killed.
                    Err(Errno::EXIST) if nr < 1000 => nr += 1,
                    made => {
                        let file = made?;
                        std::fs::remove_file(&path)?;
                        return Ok(file.into());
                    }
                }
            }
        }
    }
}
