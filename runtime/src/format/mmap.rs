//! The mapping of a file: the only unsafe code above the kernels.

use crate::error::Error;
use memmap2::Mmap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// A file mapped read-only, or bytes in memory that stand for one.
pub(super) enum Mapped {
    /// A mapped file.
    File(Mmap),
    /// Memory with the alignment of a mapping.
    Memory(Vec<Page>),
}

/// 64 bytes at the alignment that packed weights need.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Page([u64; 8]);

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> Result<Mapped, Error> {
        // Some systems do not even open a folder.
        if path.is_dir() {
            return Err(Error::NotKinglet {
                path: path.to_owned(),
                reason: "it is a folder: expected a .kgl file, which kinglet-convert makes of it"
                    .to_owned(),
            });
        }
        let file = File::open(path).map_err(|source| Error::io(path, source))?;
        let metadata = file.metadata().map_err(|source| Error::io(path, source))?;
        if metadata.len() == 0 {
            return Ok(Mapped::Memory(vec![]));
        }
        // SAFETY: the mapping is read-only, and is only read as plain numbers, for which
        // every bit pattern is valid. A file that another process shortens while it is mapped ends
        // this process by a signal (SIGBUS), and one that is rewritten gives other numbers; neither
        // breaks memory safety of the indices used here, which all come from a validated copy of the
        // header. Kinglet itself replaces files by rename, which leaves mappings as they are.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, source))?;
        // Weights stream faster from large pages. The system may refuse, or hold the file in small ones.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Mapped::File(map))
    }

    /// Copies bytes to memory with the alignment of a mapping. Bytes beyond a multiple of 64 are
    /// kept through [`Mapped::bytes`]' length argument.
    pub fn copy(bytes: &[u8]) -> Mapped {
        let mut pages = vec![Page([0; 8]); bytes.len().div_ceil(64)];
        bytemuck::cast_slice_mut::<Page, u8>(&mut pages)[..bytes.len()].copy_from_slice(bytes);
        Mapped::Memory(pages)
    }

    /// Says that these bytes will not be read soon, so that they need not stay in memory. They are as they were
    /// when they are read again.
    ///
    /// # Panics
    /// If the range is beyond the bytes.
    pub fn release(&self, range: Range<usize>) {
        assert!(range.end <= self.bytes().len(), "release beyond the file");
        #[cfg(target_os = "linux")]
        if let Mapped::File(map) = self {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the range is within the mapping. Nothing is ever written to that, so that its pages come
            // back from the file with the same bytes, for whoever reads them meanwhile, too; a file that is
            // rewritten breaks nothing here, as above.
            let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Mapped::File(map) => map,
            Mapped::Memory(pages) => bytemuck::cast_slice(pages),
        }
    }
}
