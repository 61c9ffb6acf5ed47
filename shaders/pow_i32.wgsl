// x^y by repeated multiplication, wrapping; the truncated quotient for negative y.
fn pow_i32(x: i32, y: i32) -> i32 {
  if (y < 0) {
    let sign = select(1, x, (y & 1) == 1);
    return select(0, sign, x == 1 || x == -1);
  }
  var result = 1;
  var square = x;
  for (var rest = u32(y); rest > 0u; rest >>= 1u) {
    if ((rest & 1u) == 1u) {
      result *= square;
    }
    square *= square;
  }
  return result;
}
