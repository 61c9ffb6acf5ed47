//! Schedules of matrix products.

use super::*;

/// `y[i, j] = sum over k of a[i, k] * b[k, j]` of two inputs; without a loop of rows where there is one.
fn product(m: usize, k: usize, n: usize) -> Nest {
    let mut nest = NestBuilder::new("product");
    let a = nest.param(Role::Input, "a", DType::F32, &[m, k]);
    let b = nest.param(Role::Input, "b", DType::F32, &[k, n]);
    let y = nest.param(Role::Output, "y", DType::F32, &[m, n]);
    let loops = if m > 1 { vec![("i", m), ("j", n)] } else { vec![("j", n)] };
    let mut place = nest.open_all(&loops);
    if m == 1 {
        place.insert(0, nest.pool().int(0));
    }
    let acc = nest.alloc(Scope::Register, "acc", DType::F32, &[]);
    let zero = nest.pool().constant(0.0, DType::F32);
    nest.store("init", acc, &[], zero);
    let deep = nest.open_all(&[("k", k)]);
    let left = nest.pool().load(a, &[place[0], deep[0]]);
    let right = nest.pool().load(b, &[deep[0], place[1]]);
    let value = nest.pool().mul(left, right);
    nest.update("update", acc, &[], Combiner::Add, value);
    nest.close(1);
    let sum = nest.pool().load(acc, &[]);
    nest.store("store", y, &place, sum);
    nest.close(loops.len());
    nest.finish()
}

#[test]
fn rows_are_read_where_they_lie() {
    check_trace(
        &product(64, 192, 256),
        expect![[r#"
        reorder i j
        split j = [_, 4, 32]
        split i = [_, 11]
        reorder j.0 i.0 j.1 i.1 j.2
        stage_out acc at j.1 in register
        reorder k i.1 j.2
        replace k by fma_12x32
        parallel j.0
        parallel i.0
    "#]],
    );
}

#[test]
fn a_product_of_bytes_becomes_tiles_of_fours() {
    let mut n = NestBuilder::new("product");
    let a = n.param(Role::Input, "a", DType::U8, &[100, 64]);
    let b = n.param(Role::Constant, "b", DType::I8, &[64, 80]);
    let y = n.param(Role::Output, "y", DType::I32, &[100, 80]);
    let ij = n.open_all(&[("i", 100), ("j", 80)]);
    let acc = n.alloc(Scope::Register, "acc", DType::I32, &[]);
    let zero = n.pool().constant(0.0, DType::I32);
    n.store("init", acc, &[], zero);
    let k = n.open_all(&[("k", 64)])[0];
    let pool = n.pool();
    let factors = [(a, [ij[0], k]), (b, [k, ij[1]])].map(|(buffer, index)| {
        let read = pool.load(buffer, &index);
        pool.cast(DType::I32, read)
    });
    let product = pool.mul(factors[0], factors[1]);
    n.update("update", acc, &[], Combiner::Add, product);
    n.close(1);
    let sum = n.pool().load(acc, &[]);
    n.store("store", y, &ij, sum);
    n.close(2);
    check_trace(
        &n.finish(),
        expect![[r#"
        split k = [_, 4]
        reorder i j
        split j = [_, 3, 32]
        split i = [_, 12]
        reorder i.0 j.0 j.1 i.1 j.2
        relayout b by j.1 k.0 j.2 k.1
        stage_out acc at j.1 in register
        reorder k.0 i.1 j.2 k.1
        replace k.0 by dots_12x32
        parallel i.0
    "#]],
    );
}

#[test]
fn weights_of_a_narrow_type_stay_so_in_panels_of_columns() {
    // Those that are the rows of a tile are of f32.
    let packed = [
        ("40, 100", "i, j", "relayout w by j.1 k j.2\n"),
        ("100, 40", "j, i", "relayout w by j.0 k j.1 as f32\n"),
    ];
    for (shape, place, step) in packed {
        let text = format!(
            "\
nest product
  in    x: f32[40, 256]
  const w: f16[256, 100]
  out   y: f32[{shape}]
  for i in 40, j in 100:
    register acc: f32
    init: acc = 0.0
    for k in 256:
      update: acc += x[i, k] * f32(w[k, j])
    store: y[{place}] = acc
"
        );
        let target = Target::Cpu(CpuTarget::preset(CpuIsa::Avx512, 4));
        let (_, trace) = schedule(&Nest::parse(&text).unwrap(), &target);
        let trace = trace.to_string();
        assert!(trace.contains(step) && trace.contains("by fma_12x32"), "{trace}");
    }
}

#[test]
fn what_is_pages_apart_is_packed() {
    check_trace(
        &product(128, 1024, 1024),
        expect![[r#"
        reorder i j
        split j = [_, 4, 32]
        split i = [_, 12]
        reorder j.0 i.0 j.1 i.1 j.2
        stage_in a in global by i.0 k i.1
        parallel a_s.i.0
        stage_in b at j.0 in workgroup by j.1 k j.2
        stage_out acc at j.1 in register
        reorder k i.1 j.2
        replace k by fma_12x32
        parallel j.0
    "#]],
    );
}

#[test]
fn panels_that_are_packed_may_be_finished_together() {
    let text = product(128, 512, 1024).to_string().replace("= acc\n", "= acc * 0.5\n");
    check_trace(
        &Nest::parse(&text).unwrap(),
        expect![[r#"
        reorder i j
        split j = [_, 4, 32]
        split i = [_, 24]
        reorder j.0 i.0 j.1 i.1 j.2
        stage_in b at j.0 in workgroup by j.1 k j.2
        reorder i.1 j.1 j.2
        stage_out acc at i.0 in register
        reorder j.1 k i.1 j.2
        replace k by fma_12x32
        parallel j.0
    "#]],
    );
}

#[test]
fn a_single_row_takes_the_other_factor_in_its_order() {
    check_trace(
        &product(1, 300, 1000),
        expect![[r#"
            reorder j
            split j = [_, 4, 1, 128]
            split k = [_, 128]
            stage_out acc at j.0 in register
            reorder k.0 j.1 k.1 j.2 j.3
            replace k.1 by fma_1x128
            parallel j.0
        "#]],
    );
}
