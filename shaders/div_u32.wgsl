// The quotient rounded to 0; 0 for b = 0, and wrapping.
fn div_u32(a: u32, b: u32) -> u32 {
  let d = select(b, 1u, b == 0u);
  return select(a / d, 0u, b == 0u);
}
