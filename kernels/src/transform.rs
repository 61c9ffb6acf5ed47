//! The transforms of tiles by which Winograd's convolution multiplies less: `M x Mᵀ` for each tile `x` of a plane, or `x Mᵀ` for each
//! that is a row.
//!
//! The matrices are those of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, for windows of 3 x 3: an
//! input tile and the weights are brought to the points, multiplied there, and an output tile is brought back. For windows of 3
//! along one dimension the tiles are rows.

pub(crate) mod body;

#[cfg(all(test, unix))]
mod tests;

use crate::table::KernelTable;
use crate::tile::Finish;
use crate::tile::lanes::Edge;

/// The matrix of a transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matrix {
    /// `G` of F(2 x 2, 3 x 3): weights of 3 x 3 to 4 x 4 points.
    Weights2,
    /// `G` of F(4 x 4, 3 x 3): weights of 3 x 3 to 6 x 6 points.
    Weights4,
    /// `Bᵀ` of F(2 x 2, 3 x 3): an input tile of 4 x 4 to as many points.
    Input2,
    /// `Bᵀ` of F(4 x 4, 3 x 3): an input tile of 6 x 6 to as many points.
    Input4,
    /// `Aᵀ` of F(2 x 2, 3 x 3): 4 x 4 points to an output tile of 2 x 2.
    Output2,
    /// `Aᵀ` of F(4 x 4, 3 x 3): 6 x 6 points to an output tile of 4 x 4.
    Output4,
}

impl Matrix {
    /// Every matrix, in the order of the declaration.
    pub const ALL: [Matrix; 6] = [
        Matrix::Weights2,
        Matrix::Weights4,
        Matrix::Input2,
        Matrix::Input4,
        Matrix::Output2,
        Matrix::Output4,
    ];

    /// The name used in text forms and in the names of instructions.
    pub const fn name(self) -> &'static str {
        match self {
            Matrix::Weights2 => "winograd_weights_2",
            Matrix::Weights4 => "winograd_weights_4",
            Matrix::Input2 => "winograd_input_2",
            Matrix::Input4 => "winograd_input_4",
            Matrix::Output2 => "winograd_output_2",
            Matrix::Output4 => "winograd_output_4",
        }
    }

    /// Its rows, all of one length.
    pub const fn rows(self) -> &'static [&'static [f32]] {
        match self {
            Matrix::Weights2 => &[&[1.0, 0.0, 0.0], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0.0, 0.0, 1.0]],
            Matrix::Weights4 => &[
                &[1.0 / 4.0, 0.0, 0.0],
                &[-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
                &[-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
                &[1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
                &[1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
                &[0.0, 0.0, 1.0],
            ],
            Matrix::Input2 => &[
                &[1.0, 0.0, -1.0, 0.0],
                &[0.0, 1.0, 1.0, 0.0],
                &[0.0, -1.0, 1.0, 0.0],
                &[0.0, 1.0, 0.0, -1.0],
            ],
            Matrix::Input4 => &[
                &[4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
                &[0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
                &[0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
                &[0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
                &[0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
                &[0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
            ],
            Matrix::Output2 => &[&[1.0, 1.0, 1.0, 0.0], &[0.0, 1.0, -1.0, -1.0]],
            Matrix::Output4 => &[
                &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
                &[0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
                &[0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
                &[0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
            ],
        }
    }

    /// How many columns it has: the extent of what it is applied to.
    pub const fn columns(self) -> usize {
        self.rows()[0].len()
    }
}

/// Which sides of a tile a matrix is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sides {
    /// Its columns and its rows: `M x Mᵀ`.
    Both,
    /// Its only row: `x Mᵀ`.
    Row,
}

impl Sides {
    /// Both.
    pub const ALL: [Sides; 2] = [Sides::Both, Sides::Row];

    /// The rows of a tile of so many columns.
    pub const fn rows(self, columns: usize) -> usize {
        match self {
            Sides::Both => columns,
            Sides::Row => 1,
        }
    }

    /// What follows the name of a matrix in text forms and in the names of instructions.
    pub const fn suffix(self) -> &'static str {
        match self {
            Sides::Both => "",
            Sides::Row => "_row",
        }
    }
}

/// Tiles to transform: `y[t, p, q] (+)= sum over i, j of M[p, i] * M[q, j] * x[t, i, j]`, finished, each element a vector of the
/// table's lanes, which are next to one another; of tiles that are rows `y[t, 0, q] (+)= sum over j of M[q, j] * x[t, 0, j]`.
///
/// Elements of `x` whose row or column is beyond an edge are 0. Strides count single values. Exactly the elements named are touched: those
/// of `x` inside the edges and of what `finish` names must be valid for reads, those of `y` for writes and, where it accumulates,
/// for reads; `y` must not overlap what is read.
#[derive(Clone, Copy, Debug)]
pub struct TransformArgs {
    /// The sides that the matrix is applied to.
    pub sides: Sides,
    /// Address of the first element of the first tile.
    pub x: *const f32,
    /// Stride from a row `i` to the next in `x`.
    pub x_row: isize,
    /// Stride from a column `j` to the next in `x`.
    pub x_col: isize,
    /// Stride from a tile to the next in `x`.
    pub x_tile: isize,
    /// Address of the first result.
    pub y: *mut f32,
    /// Stride from a row `p` to the next in `y`.
    pub y_row: isize,
    /// Stride from a column `q` to the next in `y`.
    pub y_col: isize,
    /// Stride from a tile to the next in `y`.
    pub y_tile: isize,
    /// Tiles.
    pub tiles: usize,
    /// The rows and the columns of `x` that there are, for each tile as a line.
    pub edges: [Edge; 2],
    /// Whether it adds to what `y` holds.
    pub accumulate: bool,
    /// What becomes of the sums, of which `p` are the rows and `q` the vectors; all have the same `start`.
    pub finish: Finish,
    /// Stride from a tile to the next in what is added.
    pub addend_tile: isize,
    /// Whether results should go past the caches, as is best where cores that share no cache with this one read them. They do where they are
    /// neither finished nor added to others, and are aligned to vectors that are lines of the caches.
    pub stream: bool,
}

impl KernelTable {
    /// Transforms tiles of [`lanes`](KernelTable::lanes) channels by a matrix.
    ///
    /// # Safety
    /// The arguments keep the contract of [`TransformArgs`].
    pub unsafe fn transform(&self, matrix: Matrix, args: &TransformArgs) {
        // SAFETY: the table's instruction set is present; the caller grants the rest.
        unsafe { (self.raw.transform)(matrix, args) }
    }
}
