// The quotient rounded down; 0 for b = 0, and wrapping.
fn floor_div_i32(a: i32, b: i32) -> i32 {
  let q = div_i32(a, b);
  let r = rem_i32(a, b);
  return select(q, q - 1, r != 0 && (a < 0) != (b < 0));
}
