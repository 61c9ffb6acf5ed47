// x^y for every sign of x: the builtin is undefined for negative x.
fn pow_f32(x: f32, y: f32) -> f32 {
  if (y == 0.0 || x == 1.0) {
    return 1.0;
  }
  let whole = floor(y) == y;
  let odd = whole && abs(y) < 16777216.0 && floor(y * 0.5) * 2.0 != y;
  if (x == 0.0) {
    return select(infinity_f32(), 0.0, y > 0.0);
  }
  if (x < 0.0 && !whole) {
    return nan_f32();
  }
  let magnitude = pow(abs(x), y);
  return select(magnitude, -magnitude, x < 0.0 && odd);
}
