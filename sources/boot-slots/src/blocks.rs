//! A file as blocks, by which two releases of it are compared.
//!
//! A list of digests says what each block of a file must be, as the lowest level of a
//! [`verity`](crate::verity) tree does of a root: the same size of blocks, the same hash and
//! salt. It has no levels above, since it is signed as a whole.

use crate::ReadAt;
use crate::verity::{BLOCK_SIZE, DIGEST_SIZE, hash_image};
use std::io;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// The digests of a file's blocks, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList(Vec<u8>);

/// Bytes that are no list: they end within a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no list of digests, which have {DIGEST_SIZE} bytes each")]
pub struct BlockListError(usize);

impl BlockList {
    /// Reads a file and computes its list.
    pub fn of<D: ReadAt + Sync + ?Sized>(file: &D) -> io::Result<Self> {
        let blocks = Blocks::of(file)?;
        hash_image(&blocks, blocks.count()).map(Self)
    }

    /// The list as it is stored.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BlockListError> {
        match bytes.len().is_multiple_of(DIGEST_SIZE) {
            true => Ok(Self(bytes)),
            false => Err(BlockListError(bytes.len())),
        }
    }

    /// As it is stored: one digest after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The digests.
    pub fn digests(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.chunks_exact(DIGEST_SIZE)
    }
}

/// A file of whole blocks: zeros fill up the last one.
#[derive(Debug)]
pub struct Blocks<'a, D: ?Sized> {
    file: &'a D,
    size: u64,
}

impl<'a, D: ReadAt + ?Sized> Blocks<'a, D> {
    /// The blocks of `file`.
    pub fn of(file: &'a D) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self { file, size })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }
}

impl<D: ReadAt + ?Sized> ReadAt for Blocks<'_, D> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.count() * BLOCK) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let inside = self.size.saturating_sub(offset).min(buffer.len() as u64);
        // No more than the buffer's length.
        let (bytes, beyond) = buffer.split_at_mut(inside as usize);
        beyond.fill(0);
        match bytes {
            [] => Ok(()),
            bytes => self.file.read_exact_at(bytes, offset),
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.count() * BLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verity::{Tree, build, hash_block};

    #[test]
    fn zeros_fill_up_the_last_block() {
        for length in [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1] {
            let file: Vec<u8> = (1..=251).cycle().take(length).collect();
            let mut padded = file.clone();
            padded.resize(length.next_multiple_of(BLOCK_SIZE), 0);
            let list = BlockList::of(&file).unwrap();
            let expected: Vec<_> = padded.chunks(BLOCK_SIZE).map(hash_block).collect();
            assert!(list.digests().eq(expected.iter()), "{length} bytes");
            assert_eq!(BlockList::parse(list.bytes().to_vec()), Ok(list));
            let blocks = Blocks::of(&file).unwrap();
            let mut read = vec![7; padded.len()];
            blocks.read_exact_at(&mut read, 0).unwrap();
            assert!(read == padded, "{length} bytes");
            assert!(blocks.read_exact_at(&mut [0], padded.len() as u64).is_err());
            assert!(blocks.read_exact_at(&mut [0], u64::MAX).is_err());
        }
    }

    #[test]
    fn it_says_of_whole_blocks_what_a_tree_says() {
        let file: Vec<u8> = (0..300 * BLOCK_SIZE).map(|at| (at >> 9) as u8).collect();
        let built = build(&file).unwrap();
        let tree = Tree::read(&built.bytes, &built.root_hash).unwrap();
        let list = BlockList::of(&file).unwrap();
        assert!(list.digests().eq(tree.digests()));
    }

    #[test]
    fn half_a_digest_is_refused() {
        assert_eq!(BlockList::parse(vec![0; 33]), Err(BlockListError(33)));
        assert!(BlockList::parse(Vec::new()).is_ok());
    }
}
