//! The file operations of a writer, one by one, so that tests can stop it between any two.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Error;

/// Suffix of a file that is still being written.
pub(super) const TEMP: &str = ".tmp";

/// One operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "read by the gates of tests"))]
pub(super) enum Step {
    MakeDir,
    Create,
    Write,
    Sync,
    Rename,
    SyncDir,
    Remove,
}

/// Asked before each operation; an error takes the operation's place.
pub(super) type Gate = Box<dyn FnMut(Step, &Path) -> io::Result<()> + Send>;

/// The disk. Only tests set a gate.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) gate: Option<Gate>,
}

/// Size and hash of a file that was written.
pub(super) struct Written {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

impl Disk {
    fn step(&mut self, step: Step, path: &Path) -> io::Result<()> {
        self.gate.as_mut().map_or(Ok(()), |gate| gate(step, path))
    }

    pub(super) fn make_dir(&mut self, dir: &Path) -> Result<(), Error> {
        if dir.is_dir() {
            return Ok(());
        }
        self.step(Step::MakeDir, dir)
            .and_then(|()| fs::create_dir_all(dir))
            .map_err(|e| Error::io(dir, e))
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Error> {
        self.step(Step::Remove, path)
            .and_then(|()| fs::remove_file(path))
            .map_err(|e| Error::io(path, e))
    }

    /// Writes `parts` to `path` so that it is there whole or not at all, a power cut included.
    pub(super) fn write(&mut self, path: &Path, parts: &[&[u8]]) -> Result<Written, Error> {
        let temp = temp_of(path);
        let written = self.write_aside(&temp, path, parts);
        if written.is_err() {
            self.remove(&temp).ok();
        }
        written.map_err(|e| Error::io(path, e))
    }

    fn write_aside(&mut self, temp: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<Written> {
        self.step(Step::Create, temp)?;
        let mut file = File::create(temp)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        for part in parts {
            self.step(Step::Write, temp)?;
            file.write_all(part)?;
            hash.update(part);
            bytes += part.len() as u64;
        }
        self.step(Step::Sync, temp)?;
        file.sync_all()?;
        drop(file);
        self.step(Step::Rename, path)?;
        fs::rename(temp, path)?;
        self.sync_dir(path)?;
        let sha256 = format!("{:x}", hash.finalize());
        Ok(Written { bytes, sha256 })
    }

    /// Makes the rename itself last. Directories can be flushed on Unix only.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."), // a bare file name
        };
        self.step(Step::SyncDir, dir)?;
        if cfg!(unix) {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }
}

/// Writes a file so that it is there whole or not at all: to a temporary sibling, flushed, renamed.
///
/// # Errors
/// [`Error::Full`] or [`Error::Io`] names the file.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    Disk::default().write(path, &[bytes]).map(|_| ())
}

/// Where `path` lies while it is being written.
fn temp_of(path: &Path) -> PathBuf {
    let mut temp = path.as_os_str().to_owned();
    temp.push(TEMP);
    temp.into()
}

/// Takes the directory for this writer until the handle is dropped. Does nothing where directories
/// cannot be locked (Windows, some network file systems).
pub(super) fn lock(dir: &Path) -> Result<Option<File>, Error> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let handle = File::open(dir).map_err(|e| Error::io(dir, e))?;
    match handle.try_lock() {
        Ok(()) => Ok(Some(handle)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// SHA-256 of a file in lower-case hex, read in pieces of 1 MiB.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read.
pub fn sha256_file(path: impl AsRef<Path>) -> Result<String, Error> {
    let path = path.as_ref();
    hash_file(path).map_err(|e| Error::io(path, e))
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(format!("{:x}", hash.finalize())),
            Ok(n) => hash.update(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
