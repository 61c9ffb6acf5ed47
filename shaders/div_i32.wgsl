// The quotient rounded to 0; 0 for b = 0, and wrapping.
fn div_i32(a: i32, b: i32) -> i32 {
  let d = select(b, 1, b == 0 || (a == -2147483647 - 1 && b == -1));
  return select(a / d, 0, b == 0);
}
