// The remainder with the sign of b; 0 for b = 0.
fn mod_i32(a: i32, b: i32) -> i32 {
  let r = rem_i32(a, b);
  return select(r, r + b, r != 0 && (r < 0) != (b < 0));
}
