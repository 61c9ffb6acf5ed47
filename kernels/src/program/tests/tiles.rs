//! Random convolutions and poolings over blocks of channels, whose tiles leave out the terms beyond an edge and finish their results.

use super::*;
use crate::activation::Activation;
use crate::table::KernelTable;

/// What is computed of windows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Convolution,
    Depthwise,
    /// A depthwise convolution whose sums become bytes.
    Scaled,
    Average,
    Largest,
}

impl Kind {
    const ALL: [Kind; 5] = [Kind::Convolution, Kind::Depthwise, Kind::Scaled, Kind::Average, Kind::Largest];
}

/// What the weights of a convolution over all channels may be stored in.
const FLOATS: [ElementType; 3] = [ElementType::F32, ElementType::F16, ElementType::BF16];

/// A convolution or pooling of one image: a tile for some lines of results of each panel of blocks. But for a convolution over all
/// channels a panel is one block, and the image has edges; for that it is as large as its windows reach.
fn windows(random: &mut Random, table: &KernelTable, kind: Kind) -> Code {
    let lanewise = kind != Kind::Convolution;
    let mut code = Code::new("windows");
    let lanes = table.lanes as i64;
    let weights = if lanewise { ElementType::F32 } else { random.pick(&FLOATS) };
    let mut upto = |count: u64| 1 + random.below(count) as i64;
    let (taps_down, taps_across, step_down, step_across) = (upto(4), upto(4), upto(2), upto(2));
    let (apart_down, apart_across, rows, columns) = (upto(2), upto(2), upto(20), upto(20));
    let (lines, panels) = (upto(5), upto(3));
    let reach = |count: i64, step: i64, taps: i64, apart: i64| (count - 1) * step + (taps - 1) * apart + 1;
    let (height, width, top, left) = if lanewise {
        // Windows may lie outside of the image altogether.
        (upto(18), upto(18), upto(5) - 1, upto(5) - 1)
    } else {
        let lines = rows * lines;
        let reached = reach(lines, step_down, taps_down, apart_down);
        (reached, reach(columns, step_across, taps_across, apart_across), 0, 0)
    };
    let blocks = if lanewise { 1 } else { upto((table.tile().cols / table.lanes) as u64) };
    let channels = if lanewise { lanes } else { upto(6) };
    let (of_terms, planes) = if lanewise { (1, panels) } else { (channels, 1) };

    // x[plane, row, column, channel]; w[panel, r, s, channel, block, lane]; y[panel, block, line, column, lane], whose lines are in pieces.
    let plane = height * width * channels;
    let types = [ElementType::F32, ElementType::U8, ElementType::I8];
    let dtype = if kind == Kind::Largest { random.pick(&types) } else { ElementType::F32 };
    let x = input(&mut code, 0, dtype, (planes * plane) as usize);
    let terms = taps_down * taps_across * of_terms;
    let w = input(&mut code, 1, weights, (panels * terms * blocks * lanes) as usize);
    let bias = input(&mut code, 2, ElementType::F32, (panels * blocks * lanes) as usize);
    let size = rows * lines * columns * lanes;
    let other = input(&mut code, 3, ElementType::F32, (panels * blocks * size) as usize);
    let of_results = random.pick(&types[1..]);
    let scaled = kind == Kind::Scaled;
    let result = if scaled { of_results } else { dtype };
    let y = output(&mut code, 4, result, (panels * blocks * size) as usize);
    let [g, p] = ["g", "p"].map(|name| code.counter(name));

    let line = step_down * width * channels;
    let first = -(top * width + left) * channels;
    let of_plane = if lanewise { plane } else { 0 };
    let from = affine(first, &[(p, lines * line), (g, of_plane)]);
    let results = affine(0, &[(g, blocks * size), (p, lines * columns * lanes)]);
    let depth = |count: i64, a_stride: i64, inside: i64| Depth {
        trip: Trip::Constant(count as usize),
        a_stride,
        b_stride: inside * blocks * lanes,
    };
    let mut depths = vec![
        depth(taps_down, apart_down * width * channels, taps_across * of_terms),
        depth(taps_across, apart_across * channels, of_terms),
    ];
    let mut guard = vec![];
    if lanewise {
        let value = affine(-top, &[(p, lines * step_down)]);
        guard.push(Condition { value, strides: vec![step_down, 0, apart_down, 0], limit: height });
        let strides = vec![0, step_across, 0, apart_across];
        guard.push(Condition { value: affine(-left, &[]), strides, limit: width });
    } else {
        depths.push(depth(channels, 1, 1));
        // As of blocks of channels, of which the last is not full.
        let left_out = random.below(channels as u64) as i64;
        let limit = (taps_down - 1) * channels + channels - left_out;
        let strides = vec![0, 0, channels, 0, 1];
        let condition = Condition { value: affine(0, &[]), strides, limit };
        guard.extend((left_out > 0).then_some(condition));
    }
    let clamped = random.chance(2);
    let columns_long = columns * lanes;
    let finish = Finish {
        start: random.chance(2).then(|| (code.access(bias, affine(0, &[(g, blocks * lanes)])), lanes)),
        addend: random.chance(2).then(|| (code.access(other, results.clone()), [columns_long, lanes, size])),
        low: Literal::Float(if clamped { -1.0 } else { f64::NEG_INFINITY }),
        high: Literal::Float(if clamped { 3.0 } else { f64::INFINITY }),
        activation: random.chance(2).then(|| random.pick(&Activation::ALL)),
    };
    let tile = Tile {
        a: code.access(x, from),
        a_line_stride: line,
        a_row_stride: step_across * channels,
        a_col_stride: i64::from(lanewise),
        terms: match kind {
            Kind::Convolution | Kind::Depthwise | Kind::Scaled => Terms::Products {
                b: code.access(w, affine(0, &[(g, terms * blocks * lanes)])),
                b_block_stride: lanes,
            },
            Kind::Average => Terms::Sum { divisor: Literal::Float(terms as f64) },
            Kind::Largest => Terms::Largest,
        },
        c: code.access(y, results),
        c_line_stride: columns_long,
        c_row_stride: lanes,
        c_block_stride: size,
        lines: Trip::Constant(lines as usize),
        rows: Trip::Constant(columns as usize),
        blocks: blocks as usize,
        cols: Trip::Constant(lanes as usize),
        depths,
        guard,
        accumulate: if !scaled && random.chance(3) { Accumulate::Always } else { Accumulate::Never },
        finish: (result == ElementType::F32).then_some(finish),
        scaled: scaled.then(|| {
            let single = random.chance(2);
            let channels = affine(0, &[(g, blocks * lanes)]);
            let signed = of_results == ElementType::I8;
            Scaled {
                start: random.chance(2).then(|| (code.access(bias, channels.clone()), lanes)),
                scale: code.access(bias, if single { affine(0, &[]) } else { channels }),
                scale_block_stride: (!single).then_some(lanes),
                zero: Literal::Float(if signed { -3.0 } else { 7.0 }),
                low: Literal::Float(if signed { -128.0 } else { 0.0 }),
                high: Literal::Float(if signed { 100.0 } else { 255.0 }),
            }
        }),
    };
    let pieces = serial(p, rows as usize, vec![Node::Call(Call::Tile(Box::new(tile)))]);
    code.body.push(parallel(g, panels as usize, vec![pieces]));
    code
}

#[test]
fn terms_beyond_the_edge_are_left_out_and_sums_finished() {
    let mut random = Random(0x711e5);
    for case in 0..100 {
        for isa in Isa::available() {
            for kind in Kind::ALL {
                let code = windows(&mut random, table(isa), kind);
                compare(&code, &contents(&code, case + 1), 1e-5, &[isa], &[2]);
            }
        }
    }
}

/// A convolution of bytes over blocks of channels: a tile for each panel of blocks.
fn bytes(random: &mut Random, table: &KernelTable) -> Code {
    let mut code = Code::new("bytes");
    let lanes = table.lanes as i64;
    let mut upto = |count: u64| 1 + random.below(count) as i64;
    let (taps, channels, rows, lines, panels) = (upto(4), 4 * upto(5), upto(20), upto(3), upto(3));
    let most = table.dots().map(|kernel| kernel.cols / table.lanes).max().unwrap_or(1);
    let blocks = upto(most as u64);
    // x[row, channel]; w[panel, tap, channel / 4, block, lane, channel % 4]; y[panel, block, row, lane].
    let dtype = random.pick(&[ElementType::U8, ElementType::I8]);
    let (terms, size) = (taps * channels, rows * lines * lanes);
    let x = input(&mut code, 0, dtype, ((rows * lines + taps - 1) * channels) as usize);
    let w = input(&mut code, 1, ElementType::I8, (panels * terms * blocks * lanes) as usize);
    let scaled = random.chance(2);
    let of_results = random.pick(&[ElementType::U8, ElementType::I8]);
    let of_results = if scaled { of_results } else { ElementType::I32 };
    let y = output(&mut code, 2, of_results, (panels * blocks * size) as usize);
    let g = code.counter("g");
    let of_columns = affine(0, &[(g, blocks * lanes)]);
    let scaled = scaled.then(|| {
        let start = input(&mut code, 3, ElementType::I32, (panels * blocks * lanes) as usize);
        let scale = input(&mut code, 4, ElementType::F32, (panels * blocks * lanes) as usize);
        let unsigned = of_results == ElementType::U8;
        let (zero, low, high) = if unsigned { (100.0, 0.0, 255.0) } else { (-3.0, -128.0, 127.0) };
        Scaled {
            start: random.chance(2).then(|| (code.access(start, of_columns.clone()), lanes)),
            scale: code.access(scale, of_columns.clone()),
            scale_block_stride: random.chance(2).then_some(lanes),
            zero: Literal::Float(zero),
            low: Literal::Float(low),
            high: Literal::Float(high),
        }
    });
    let depth = |count: i64, a_stride: i64, b_stride: i64| Depth {
        trip: Trip::Constant(count as usize),
        a_stride,
        b_stride,
    };
    let tile = Tile {
        a: code.access(x, affine(0, &[])),
        a_line_stride: rows * channels,
        a_row_stride: channels,
        a_col_stride: 0,
        terms: Terms::Dots {
            b: code.access(w, affine(0, &[(g, terms * blocks * lanes)])),
            b_block_stride: 4 * lanes,
        },
        c: code.access(y, affine(0, &[(g, blocks * size)])),
        c_line_stride: rows * lanes,
        c_row_stride: lanes,
        c_block_stride: size,
        lines: Trip::Constant(lines as usize),
        rows: Trip::Constant(rows as usize),
        blocks: blocks as usize,
        cols: Trip::Constant(lanes as usize),
        depths: vec![
            depth(taps, channels, channels * blocks * lanes),
            depth(channels / 4, 4, 4 * blocks * lanes),
        ],
        guard: vec![],
        accumulate: if scaled.is_none() && random.chance(3) { Accumulate::Always } else { Accumulate::Never },
        finish: None,
        scaled,
    };
    code.body.push(parallel(g, panels as usize, vec![Node::Call(Call::Tile(Box::new(tile)))]));
    code
}

#[test]
fn bytes_are_multiplied_by_fours() {
    let mut random = Random(0xb17e5);
    for case in 0..200 {
        for isa in Isa::available() {
            let code = bytes(&mut random, table(isa));
            compare(&code, &contents(&code, case + 1), 0.0, &[isa], &[2]);
        }
    }
}

#[test]
fn tiles_of_bytes_that_do_not_keep_to_their_types_and_buffers_are_refused() {
    let code = bytes(&mut Random(5), table(Isa::Generic));
    let refused = |change: &dyn Fn(&mut Code, &mut Tile)| {
        let mut code = code.clone();
        let Node::Loop(mut panel) = code.body.remove(0) else { panic!("a loop") };
        let Node::Call(Call::Tile(tile)) = &mut panel.body[0] else { panic!("a tile") };
        change(&mut code, tile);
        code.body.push(Node::Loop(panel));
        code.verify(table(Isa::Generic)).unwrap_err().problem
    };
    assert!(code.verify(table(Isa::Generic)).is_ok());
    for buffer in 0..3 {
        let floats = |code: &mut Code, _: &mut Tile| code.buffers[buffer].dtype = ElementType::F32;
        assert!(matches!(refused(&floats), Problem::Type { .. }));
        let short = |code: &mut Code, _: &mut Tile| code.buffers[buffer].length -= 1;
        assert!(matches!(refused(&short), Problem::OutOfRange { .. }));
    }
    assert!(matches!(refused(&|_, tile| tile.a_col_stride = 1), Problem::TileSize { .. }));
    let finish = Finish {
        start: None,
        addend: None,
        low: Literal::Float(0.0),
        high: Literal::Float(1.0),
        activation: None,
    };
    assert!(matches!(refused(&|_, tile| tile.finish = Some(finish.clone())), Problem::TileSize { .. }));
}

/// What is wrong with a convolution or pooling after a change of its tile.
fn refused(code: &Code, change: &dyn Fn(&mut Tile)) -> Problem {
    let mut code = code.clone();
    let Node::Loop(panel) = &mut code.body[0] else { panic!("a loop") };
    let Node::Loop(piece) = &mut panel.body[0] else { panic!("a loop") };
    let Node::Call(Call::Tile(tile)) = &mut piece.body[0] else { panic!("a tile") };
    change(tile);
    code.verify(table(Isa::Generic)).unwrap_err().problem
}

#[test]
fn of_a_matrix_tile_only_the_last_terms_are_left_out() {
    let code = windows(&mut Random(3), table(Isa::Generic), Kind::Convolution);
    let tail = |change: &dyn Fn(&mut Tile, &mut Condition)| {
        refused(&code, &|tile| {
            for (level, count) in tile.depths.iter_mut().zip([2, 1, 3]) {
                level.trip = Trip::Constant(count);
            }
            let mut condition = Condition { value: affine(0, &[]), strides: vec![0, 0, 3, 0, 1], limit: 5 };
            change(tile, &mut condition);
            tile.guard = vec![condition];
        })
    };
    assert_eq!(tail(&|_, condition| condition.limit = 2), Problem::TileGuard);
    assert_eq!(tail(&|_, condition| condition.limit = 3), Problem::TileGuard);
    assert_eq!(tail(&|_, condition| condition.strides[1] = 1), Problem::TileGuard);
    assert_eq!(tail(&|_, condition| condition.strides[3] = 1), Problem::TileGuard);
    assert_eq!(tail(&|_, condition| condition.strides[4] = -1), Problem::TileGuard);
    assert_eq!(tail(&|_, condition| condition.value.constant = -1), Problem::TileGuard);
    let bounded = |tile: &mut Tile, _: &mut Condition| {
        tile.depths[0].trip = Trip::Bounded { max: 2, bounds: vec![] };
    };
    assert_eq!(tail(&bounded), Problem::TileGuard);
}

#[test]
fn conditions_that_do_not_keep_to_the_buffer_are_refused() {
    let mut random = Random(3);
    let code = windows(&mut random, table(Isa::Generic), Kind::Depthwise);
    let refused = |change: &dyn Fn(&mut Tile)| refused(&code, change);
    assert!(code.verify(table(Isa::Generic)).is_ok());
    assert!(matches!(refused(&|tile| tile.guard[0].value.constant -= 1), Problem::OutOfRange { .. }));
    assert!(matches!(refused(&|tile| tile.guard.truncate(1)), Problem::OutOfRange { .. }));
    assert!(matches!(refused(&|tile| tile.guard[0].strides.truncate(3)), Problem::Strides { .. }));
    assert_eq!(refused(&|tile| tile.guard[1].strides[2] = 1), Problem::TileGuard);
    assert_eq!(refused(&|tile| tile.guard[0].strides[1] = 1), Problem::TileGuard);
    assert_eq!(refused(&|tile| tile.guard.push(tile.guard[0].clone())), Problem::TileGuard);
    let in_place = |tile: &mut Tile| {
        let c = tile.c;
        tile.finish.as_mut().unwrap().addend = Some((c, [1, 1, 1]));
    };
    assert_eq!(refused(&in_place), Problem::TileOverlap);
}
