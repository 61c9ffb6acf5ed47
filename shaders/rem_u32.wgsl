// The remainder with the sign of a; 0 for b = 0.
fn rem_u32(a: u32, b: u32) -> u32 {
  let d = select(b, 1u, b == 0u);
  return select(a % d, 0u, b == 0u);
}
