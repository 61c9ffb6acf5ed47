//! The instructions: one row each, in families.

use super::{Emission, Instruction, Operand, Runs, Shape, Stride};
use crate::loopir::Combiner;
use crate::tensor::DType;
use paisley_kernels::tile::DEPTHS;
use paisley_kernels::tile::dots::DOT_TERMS;
use paisley_kernels::tile::lanes::LANE_DEPTHS;
use paisley_kernels::transform::{Matrix, Sides};

const UNLIMITED: usize = usize::MAX;
const F32: &[DType] = &[DType::F32];
/// What the largest is found of.
const LARGEST: &[DType] = &[DType::F32, DType::U8, DType::I8];
/// A factor that a matrix tile converts as it reads it.
const FLOATS: &[DType] = &[DType::F32, DType::F16, DType::BF16];

macro_rules! fma {
    ($name:literal, $columns:literal) => {
        Instruction {
            name: $name,
            loops: &[("k", UNLIMITED, Runs::Some), ("i", UNLIMITED, Runs::Some), ("j", $columns, Runs::Some)],
            levels: DEPTHS,
            tail: true,
            operands: &[
                Operand {
                    name: "a",
                    dtypes: F32,
                    strides: &[Stride::Any, Stride::Any, Stride::Zero],
                    edges: false,
                },
                Operand {
                    name: "b",
                    dtypes: FLOATS,
                    strides: &[Stride::Any, Stride::Zero, Stride::One],
                    edges: false,
                },
            ],
            value: Shape::Product,
            combine: Combiner::Add,
            result: Operand {
                name: "c",
                dtypes: F32,
                strides: &[Stride::Zero, Stride::Any, Stride::One],
                edges: false,
            },
            emission: Emission::Tile,
        }
    };
}

/// A matrix tile whose columns are blocks of a vector each.
macro_rules! fma_blocks {
    ($name:literal, $blocks:literal, $columns:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("k", UNLIMITED, Runs::Some),
                ("i", UNLIMITED, Runs::Some),
                ("v", $blocks, Runs::All),
                ("j", $columns, Runs::Exactly),
            ],
            levels: DEPTHS,
            tail: true,
            operands: &[
                Operand {
                    name: "a",
                    dtypes: F32,
                    strides: &[Stride::Any, Stride::Any, Stride::Zero, Stride::Zero],
                    edges: false,
                },
                Operand {
                    name: "b",
                    dtypes: FLOATS,
                    strides: &[Stride::Any, Stride::Zero, Stride::Any, Stride::One],
                    edges: false,
                },
            ],
            value: Shape::Product,
            combine: Combiner::Add,
            result: Operand {
                name: "c",
                dtypes: F32,
                strides: &[Stride::Zero, Stride::Any, Stride::Any, Stride::One],
                edges: false,
            },
            emission: Emission::Tile,
        }
    };
}

/// A matrix tile of bytes, of which four neighbours of each factor are multiplied and added at once.
macro_rules! dots {
    ($name:literal, $columns:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("k", UNLIMITED, Runs::Some),
                ("i", UNLIMITED, Runs::Some),
                ("j", $columns, Runs::Some),
                ("q", DOT_TERMS, Runs::Exactly),
            ],
            levels: DEPTHS,
            tail: true,
            operands: &[
                Operand {
                    name: "a",
                    dtypes: &[DType::U8, DType::I8],
                    strides: &[Stride::Any, Stride::Any, Stride::Zero, Stride::One],
                    edges: false,
                },
                Operand {
                    name: "b",
                    dtypes: &[DType::I8],
                    strides: &[Stride::Any, Stride::Zero, Stride::Row, Stride::One],
                    edges: false,
                },
            ],
            value: Shape::Product,
            combine: Combiner::Add,
            result: Operand {
                name: "c",
                dtypes: &[DType::I32],
                strides: &[Stride::Zero, Stride::Any, Stride::One, Stride::Zero],
                edges: false,
            },
            emission: Emission::Dots,
        }
    };
}

/// A matrix tile of bytes whose columns are blocks of a vector each.
macro_rules! dots_blocks {
    ($name:literal, $blocks:literal, $columns:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("k", UNLIMITED, Runs::Some),
                ("i", UNLIMITED, Runs::Some),
                ("v", $blocks, Runs::All),
                ("j", $columns, Runs::Exactly),
                ("q", DOT_TERMS, Runs::Exactly),
            ],
            levels: DEPTHS,
            tail: true,
            operands: &[
                Operand {
                    name: "a",
                    dtypes: &[DType::U8, DType::I8],
                    strides: &[Stride::Any, Stride::Any, Stride::Zero, Stride::Zero, Stride::One],
                    edges: false,
                },
                Operand {
                    name: "b",
                    dtypes: &[DType::I8],
                    strides: &[Stride::Any, Stride::Zero, Stride::Any, Stride::Row, Stride::One],
                    edges: false,
                },
            ],
            value: Shape::Product,
            combine: Combiner::Add,
            result: Operand {
                name: "c",
                dtypes: &[DType::I32],
                strides: &[Stride::Zero, Stride::Any, Stride::Any, Stride::One, Stride::Zero],
                edges: false,
            },
            emission: Emission::Dots,
        }
    };
}

/// A tile of a vector of columns whose factors both are vectors: a convolution of each channel by itself.
macro_rules! fma_lanes {
    ($name:literal, $columns:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("k", UNLIMITED, Runs::Some),
                ("i", UNLIMITED, Runs::Some),
                ("j", $columns, Runs::Exactly),
            ],
            levels: LANE_DEPTHS,
            tail: false,
            operands: &[
                Operand {
                    name: "a",
                    dtypes: F32,
                    strides: &[Stride::Any, Stride::Any, Stride::One],
                    edges: true,
                },
                Operand {
                    name: "b",
                    dtypes: F32,
                    strides: &[Stride::Any, Stride::Zero, Stride::One],
                    edges: false,
                },
            ],
            value: Shape::Product,
            combine: Combiner::Add,
            result: Operand {
                name: "c",
                dtypes: F32,
                strides: &[Stride::Zero, Stride::Any, Stride::One],
                edges: false,
            },
            emission: Emission::Tile,
        }
    };
}

/// A pooling of vectors: of each channel by itself.
macro_rules! pool_lanes {
    ($name:literal, $columns:literal, $combine:expr, $dtypes:expr) => {
        Instruction {
            name: $name,
            loops: &[
                ("k", UNLIMITED, Runs::Some),
                ("i", UNLIMITED, Runs::Some),
                ("j", $columns, Runs::Exactly),
            ],
            levels: LANE_DEPTHS,
            tail: false,
            operands: &[Operand {
                name: "a",
                dtypes: $dtypes,
                strides: &[Stride::Any, Stride::Any, Stride::One],
                edges: true,
            }],
            value: Shape::Single,
            combine: $combine,
            result: Operand {
                name: "c",
                dtypes: $dtypes,
                strides: &[Stride::Zero, Stride::Any, Stride::One],
                edges: false,
            },
            emission: Emission::Tile,
        }
    };
}

/// Windows of rows `r` and columns `s` over a plane, for output rows `p` and columns `q`.
macro_rules! windows {
    ($name:literal, $operands:expr, $value:expr, $combine:expr) => {
        Instruction {
            name: $name,
            loops: &[
                ("r", UNLIMITED, Runs::All),
                ("s", UNLIMITED, Runs::All),
                ("p", UNLIMITED, Runs::Some),
                ("q", UNLIMITED, Runs::Some),
            ],
            levels: 1,
            tail: false,
            operands: $operands,
            value: $value,
            combine: $combine,
            result: Operand {
                name: "y",
                dtypes: F32,
                strides: &[Stride::Zero, Stride::Zero, Stride::Row, Stride::One],
                edges: false,
            },
            emission: Emission::Window,
        }
    };
}

/// A transform of `i` x `j` vectors of channels `l` of tiles `t` to `p` x `q`.
macro_rules! winograd {
    ($name:literal, $matrix:ident, $lanes:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("i", Matrix::$matrix.columns(), Runs::Exactly),
                ("j", Matrix::$matrix.columns(), Runs::Exactly),
                ("t", UNLIMITED, Runs::Some),
                ("p", Matrix::$matrix.rows().len(), Runs::Exactly),
                ("q", Matrix::$matrix.rows().len(), Runs::Exactly),
                ("l", $lanes, Runs::Exactly),
            ],
            levels: 1,
            tail: false,
            operands: &[Operand {
                name: "x",
                dtypes: F32,
                strides: &[Stride::Any, Stride::Any, Stride::Any, Stride::Zero, Stride::Zero, Stride::One],
                edges: true,
            }],
            value: Shape::Transform(Matrix::$matrix, Sides::Both),
            combine: Combiner::Add,
            result: Operand {
                name: "y",
                dtypes: F32,
                strides: &[Stride::Zero, Stride::Zero, Stride::Any, Stride::Any, Stride::Any, Stride::One],
                edges: false,
            },
            emission: Emission::Transform,
        }
    };
}

/// A transform of `j` vectors of channels `l` of tiles `t`, which are rows, to `q`.
macro_rules! winograd_row {
    ($name:literal, $matrix:ident, $lanes:literal) => {
        Instruction {
            name: $name,
            loops: &[
                ("j", Matrix::$matrix.columns(), Runs::Exactly),
                ("t", UNLIMITED, Runs::Some),
                ("q", Matrix::$matrix.rows().len(), Runs::Exactly),
                ("l", $lanes, Runs::Exactly),
            ],
            levels: 1,
            tail: false,
            operands: &[Operand {
                name: "x",
                strides: &[Stride::Any, Stride::Any, Stride::Zero, Stride::One],
                edges: true,
                dtypes: F32,
            }],
            value: Shape::Transform(Matrix::$matrix, Sides::Row),
            combine: Combiner::Add,
            result: Operand {
                name: "y",
                strides: &[Stride::Zero, Stride::Any, Stride::Any, Stride::One],
                edges: false,
                dtypes: F32,
            },
            emission: Emission::Transform,
        }
    };
}

const WINDOW: Operand = Operand {
    name: "x",
    dtypes: F32,
    strides: &[Stride::Any, Stride::Positive, Stride::Any, Stride::Positive],
    edges: false,
};
const WINDOW_WEIGHTS: Operand = Operand {
    name: "w",
    dtypes: F32,
    strides: &[Stride::Row, Stride::One, Stride::Zero, Stride::Zero],
    edges: false,
};

/// Every instruction.
pub const INSTRUCTIONS: &[Instruction] = &[
    fma!("fma_12x32", 32),
    fma!("fma_6x16", 16),
    fma!("fma_3x12", 12),
    fma!("fma_4x8", 8),
    fma!("fma_1x128", 128),
    fma!("fma_1x64", 64),
    fma!("fma_1x32", 32),
    fma_blocks!("fma_12x2x16", 2, 16),
    fma_blocks!("fma_6x2x8", 2, 8),
    fma_blocks!("fma_8x3x16", 3, 16),
    fma_blocks!("fma_4x3x8", 3, 8),
    fma_blocks!("fma_3x3x4", 3, 4),
    dots!("dots_12x32", 32),
    dots!("dots_6x16", 16),
    dots!("dots_3x12", 12),
    dots_blocks!("dots_12x2x16", 2, 16),
    dots_blocks!("dots_8x3x16", 3, 16),
    dots_blocks!("dots_6x2x8", 2, 8),
    dots_blocks!("dots_3x3x4", 3, 4),
    fma_lanes!("fma_lanes_16", 16),
    fma_lanes!("fma_lanes_8", 8),
    fma_lanes!("fma_lanes_4", 4),
    pool_lanes!("pool_max_lanes_16", 16, Combiner::Max, LARGEST),
    pool_lanes!("pool_max_lanes_8", 8, Combiner::Max, LARGEST),
    pool_lanes!("pool_max_lanes_4", 4, Combiner::Max, LARGEST),
    pool_lanes!("pool_sum_lanes_16", 16, Combiner::Add, F32),
    pool_lanes!("pool_sum_lanes_8", 8, Combiner::Add, F32),
    pool_lanes!("pool_sum_lanes_4", 4, Combiner::Add, F32),
    windows!("depthwise", &[WINDOW, WINDOW_WEIGHTS], Shape::Product, Combiner::Add),
    windows!("pool_max", &[WINDOW], Shape::Single, Combiner::Max),
    windows!("pool_sum", &[WINDOW], Shape::Single, Combiner::Add),
    winograd!("winograd_weights_2_16", Weights2, 16),
    winograd!("winograd_weights_2_8", Weights2, 8),
    winograd!("winograd_weights_2_4", Weights2, 4),
    winograd!("winograd_weights_4_16", Weights4, 16),
    winograd!("winograd_weights_4_8", Weights4, 8),
    winograd!("winograd_weights_4_4", Weights4, 4),
    winograd!("winograd_input_2_16", Input2, 16),
    winograd!("winograd_input_2_8", Input2, 8),
    winograd!("winograd_input_2_4", Input2, 4),
    winograd!("winograd_input_4_16", Input4, 16),
    winograd!("winograd_input_4_8", Input4, 8),
    winograd!("winograd_input_4_4", Input4, 4),
    winograd!("winograd_output_2_16", Output2, 16),
    winograd!("winograd_output_2_8", Output2, 8),
    winograd!("winograd_output_2_4", Output2, 4),
    winograd!("winograd_output_4_16", Output4, 16),
    winograd!("winograd_output_4_8", Output4, 8),
    winograd!("winograd_output_4_4", Output4, 4),
    winograd_row!("winograd_weights_2_row_16", Weights2, 16),
    winograd_row!("winograd_weights_2_row_8", Weights2, 8),
    winograd_row!("winograd_weights_2_row_4", Weights2, 4),
    winograd_row!("winograd_weights_4_row_16", Weights4, 16),
    winograd_row!("winograd_weights_4_row_8", Weights4, 8),
    winograd_row!("winograd_weights_4_row_4", Weights4, 4),
    winograd_row!("winograd_input_2_row_16", Input2, 16),
    winograd_row!("winograd_input_2_row_8", Input2, 8),
    winograd_row!("winograd_input_2_row_4", Input2, 4),
    winograd_row!("winograd_input_4_row_16", Input4, 16),
    winograd_row!("winograd_input_4_row_8", Input4, 8),
    winograd_row!("winograd_input_4_row_4", Input4, 4),
    winograd_row!("winograd_output_2_row_16", Output2, 16),
    winograd_row!("winograd_output_2_row_8", Output2, 8),
    winograd_row!("winograd_output_2_row_4", Output2, 4),
    winograd_row!("winograd_output_4_row_16", Output4, 16),
    winograd_row!("winograd_output_4_row_8", Output4, 8),
    winograd_row!("winograd_output_4_row_4", Output4, 4),
];

/// The instruction of that name.
pub fn instruction_named(name: &str) -> Option<&'static Instruction> {
    INSTRUCTIONS.iter().find(|instruction| instruction.name == name)
}
