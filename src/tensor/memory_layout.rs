//! How the elements of a tensor lie in memory.

/// How the elements of a tensor lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemoryLayout {
    /// Row-major.
    #[default]
    Rows,
    /// Dimension 1 in blocks of that many, a block innermost: element `[n, c, h, w]` lies where `[n, c / block, h, w, c % block]`
    /// does in rows. The channels that the last block has too many are 0 in floats, and anything in
    /// integers, whose product with 0 is 0 whatever they are.
    ChannelBlocks(usize),
}

impl MemoryLayout {
    /// Whether a tensor of `shape` can lie so.
    pub fn fits(self, shape: &[usize]) -> bool {
        match self {
            MemoryLayout::Rows => true,
            MemoryLayout::ChannelBlocks(block) => {
                block > 0 && shape.get(1).is_some_and(|&channels| channels > 0)
            }
        }
    }

    /// The shape in rows of the memory of a tensor of `shape`, which [`fits`](Self::fits).
    pub fn storage_shape(self, shape: &[usize]) -> Vec<usize> {
        let mut storage = shape.to_vec();
        if let MemoryLayout::ChannelBlocks(block) = self
            && let Some(channels) = storage.get_mut(1)
        {
            *channels = channels.div_ceil(block.max(1));
            storage.push(block);
        }
        storage
    }

    /// The elements of that shape.
    pub fn storage_len(self, shape: &[usize]) -> usize {
        self.storage_shape(shape).iter().product()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_divide_the_channels() {
        let blocks = MemoryLayout::ChannelBlocks(16);
        assert_eq!(blocks.storage_shape(&[1, 64, 7, 5]), [1, 4, 7, 5, 16]);
        assert_eq!(MemoryLayout::Rows.storage_shape(&[1, 64, 7, 5]), [1, 64, 7, 5]);
        assert!(blocks.fits(&[1, 64, 7, 5]) && blocks.fits(&[1, 16]));
        assert_eq!(blocks.storage_shape(&[1, 24, 7, 5]), [1, 2, 7, 5, 16]);
        assert_eq!((blocks.storage_len(&[1, 24, 7, 5]), blocks.storage_len(&[1, 64, 7, 5])), (1120, 2240));
        assert!(blocks.fits(&[1, 24, 7, 5]) && !blocks.fits(&[64]) && !blocks.fits(&[1, 0, 7]));
    }
}
