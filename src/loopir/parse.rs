//! The parser of the text form; the printer is its inverse: `parse(print(n))` prints the same and hashes the same.
//!
//! Loop variables are known inside their loop, buffers from their declaration on. Expressions are taken as they are written:
//! nothing folds. What a nest must satisfy beyond its form is for [`Nest::verify`] to say.

use super::lex::{Line, Token, lex};
use super::print::kind_named;
use super::{Buffer, BufferId, Combiner, Loop, LoopKind, Nest, Role, Scope, Stmt, Store, VarId, Variable};
use crate::expr::{BinaryOp, Expr, ExprId, UnaryOp};
use crate::tensor::DType;
use std::collections::HashMap;

/// Loops and brackets nested deeper than this are refused.
const MAX_DEPTH: usize = 200;

/// The text is not that of a nest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Counting from 1.
    pub line: usize,
    /// Counting from 1.
    pub column: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl ParseError {
    pub(super) fn new(line: usize, column: usize, expected: impl Into<String>, found: String) -> ParseError {
        ParseError { line, column, expected: expected.into(), found }
    }
}

impl Nest {
    /// The nest that prints as `text`.
    ///
    /// # Errors
    /// The first place where the text is not that of a nest.
    pub fn parse(text: &str) -> Result<Nest, ParseError> {
        let lines = lex(text)?;
        let Some(first) = lines.first() else {
            return Err(ParseError::new(1, 1, "`nest NAME`", "nothing".into()));
        };
        let Some(name) = first.text[first.indent..].strip_prefix("nest ") else {
            return Err(Cursor::new(first).error("`nest NAME`"));
        };
        let mut parser = Parser {
            nest: Nest::new(name.trim()),
            lines: &lines,
            next: 1,
            loops: vec![],
            buffers: HashMap::new(),
        };
        parser.nest_body(first.indent)?;
        Ok(parser.nest)
    }
}

impl std::str::FromStr for Nest {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Nest, ParseError> {
        Nest::parse(text)
    }
}

/// A place in a line.
struct Cursor<'a> {
    line: &'a Line,
    at: usize,
    depth: usize,
}

impl<'a> Cursor<'a> {
    fn new(line: &'a Line) -> Cursor<'a> {
        Cursor { line, at: 0, depth: 0 }
    }

    fn peek(&self) -> Option<&'a Token> {
        self.line.tokens.get(self.at).map(|(_, token)| token)
    }

    fn peek_second(&self) -> Option<&'a Token> {
        self.line.tokens.get(self.at + 1).map(|(_, token)| token)
    }

    fn peek_name(&self) -> Option<&'a str> {
        match self.peek() {
            Some(Token::Name(name)) => Some(name),
            Some(Token::Number(..) | Token::Symbol(_)) | None => None,
        }
    }

    fn error(&self, expected: impl Into<String>) -> ParseError {
        let (column, found) = match self.line.tokens.get(self.at) {
            Some((column, token)) => (*column, token.to_string()),
            None => (self.line.text.chars().count() + 1, "the end of the line".to_string()),
        };
        ParseError::new(self.line.number, column, expected, found)
    }

    /// Steps over `symbol` if it is next.
    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(next)) if *next == symbol);
        self.at += usize::from(found);
        found
    }

    /// Steps over the word if it is next.
    fn eat_word(&mut self, word: &str) -> bool {
        let found = self.peek_name() == Some(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), ParseError> {
        if self.eat(symbol) { Ok(()) } else { Err(self.error(format!("`{symbol}`"))) }
    }

    fn expect_end(&self) -> Result<(), ParseError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("the end of the line")) }
    }

    fn name(&mut self, what: &str) -> Result<&'a str, ParseError> {
        let name = self.peek_name().ok_or_else(|| self.error(what))?;
        self.at += 1;
        Ok(name)
    }

    /// A number that counts something.
    fn count(&mut self, what: &str) -> Result<usize, ParseError> {
        let value = match self.peek() {
            Some(Token::Number(text, None)) => text.parse::<i64>().ok().and_then(|n| usize::try_from(n).ok()),
            Some(Token::Name(_) | Token::Number(..) | Token::Symbol(_)) | None => None,
        };
        let value = value.ok_or_else(|| self.error(what))?;
        self.at += 1;
        Ok(value)
    }
}

struct Parser<'a> {
    nest: Nest,
    lines: &'a [Line],
    next: usize,
    /// The loops around the place, innermost last.
    loops: Vec<(String, VarId)>,
    buffers: HashMap<String, BufferId>,
}

impl<'a> Parser<'a> {
    /// The indentation of the lines under a line, if there are any.
    fn indent_below(&self, outer: usize) -> Option<usize> {
        self.lines.get(self.next).map(|line| line.indent).filter(|&indent| indent > outer)
    }

    /// The next line, if it is indented by `indent` exactly; an error where it is deeper.
    fn line_at(&self, indent: usize) -> Result<Option<Cursor<'a>>, ParseError> {
        match self.lines.get(self.next) {
            Some(line) if line.indent == indent => Ok(Some(Cursor::new(line))),
            Some(line) if line.indent > indent => {
                Err(Cursor::new(line).error(format!("{indent} spaces before the line")))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn nest_body(&mut self, outer: usize) -> Result<(), ParseError> {
        if let Some(indent) = self.indent_below(outer) {
            while let Some(mut cursor) = self.line_at(indent)? {
                let Some(role) = param_role(&cursor) else { break };
                cursor.at += 1;
                let id = self.declaration(&mut cursor, role, Scope::Global)?;
                self.nest.params.push(id);
                self.next += 1;
            }
            if let Some(mut cursor) = self.line_at(indent)?
                && cursor.line.tokens.len() == 2
                && cursor.eat_word("prepare")
                && cursor.eat(":")
            {
                self.next += 1;
                self.nest.preparation = self.stmts_below(indent)?;
            }
            self.nest.body = self.stmts(indent)?;
        }
        match self.lines.get(self.next) {
            Some(line) => Err(Cursor::new(line).error("the end of the nest")),
            None => Ok(()),
        }
    }

    fn stmts_below(&mut self, outer: usize) -> Result<Vec<Stmt>, ParseError> {
        match self.indent_below(outer) {
            Some(indent) => self.stmts(indent),
            None => Ok(vec![]),
        }
    }

    fn stmts(&mut self, indent: usize) -> Result<Vec<Stmt>, ParseError> {
        let mut stmts = vec![];
        while let Some(mut cursor) = self.line_at(indent)? {
            self.next += 1;
            let stmt = if cursor.line.tokens.len() == 1 && cursor.eat_word("barrier") {
                Stmt::Barrier
            } else if matches!(cursor.peek_second(), Some(Token::Name(_))) {
                if cursor.eat_word("for") {
                    self.loops(&mut cursor, indent)?
                } else if let Some((role, scope)) = cursor.peek_name().and_then(local_kind) {
                    cursor.at += 1;
                    Stmt::Alloc(self.declaration(&mut cursor, role, scope)?)
                } else {
                    return Err(cursor.error("`for`, a scope, `barrier` or the name of a block"));
                }
            } else {
                Stmt::Store(self.store(&mut cursor)?)
            };
            stmts.push(stmt);
        }
        Ok(stmts)
    }

    /// `NAME: dtype[shape] pad N`
    fn declaration(
        &mut self,
        cursor: &mut Cursor<'_>,
        role: Role,
        scope: Scope,
    ) -> Result<BufferId, ParseError> {
        if cursor.peek_name().is_some_and(|name| self.buffers.contains_key(name)) {
            return Err(cursor.error("a name that no buffer has yet"));
        }
        let name = cursor.name("the name of a buffer")?.to_string();
        cursor.expect(":")?;
        let dtype =
            cursor.peek_name().and_then(DType::from_name).ok_or_else(|| cursor.error("an element type"))?;
        cursor.at += 1;
        let mut shape = vec![];
        if cursor.eat("[") {
            shape.push(cursor.count("an extent")?);
            while cursor.eat(",") {
                shape.push(cursor.count("an extent")?);
            }
            cursor.expect("]")?;
        }
        let row_padding =
            if cursor.eat_word("pad") { cursor.count("the number of elements of padding")? } else { 0 };
        cursor.expect_end()?;
        let buffer = Buffer { name: name.clone(), dtype, shape, scope, role, row_padding };
        let id = self.nest.pool.buffers.push(buffer);
        self.buffers.insert(name, id);
        Ok(id)
    }

    /// `for a in 4 workgroup.x by instruction, b in 8:` after the `for`, and the lines below.
    fn loops(&mut self, cursor: &mut Cursor<'_>, indent: usize) -> Result<Stmt, ParseError> {
        let around = self.loops.len();
        let mut heads = vec![];
        loop {
            heads.push(self.loop_head(cursor)?);
            if self.loops.len() > MAX_DEPTH {
                return Err(cursor.error(format!("at most {MAX_DEPTH} loops inside of one another")));
            }
            if !cursor.eat(",") {
                break;
            }
        }
        cursor.expect(":")?;
        cursor.expect_end()?;
        let mut body = self.stmts_below(indent)?;
        self.loops.truncate(around);
        for (var, kind, instruction) in heads.into_iter().rev() {
            body = vec![Stmt::Loop(Loop { var, kind, instruction, body })];
        }
        Ok(body.remove(0))
    }

    fn loop_head(
        &mut self,
        cursor: &mut Cursor<'_>,
    ) -> Result<(VarId, LoopKind, Option<String>), ParseError> {
        let name = cursor.name("the name of a loop")?.to_string();
        if !cursor.eat_word("in") {
            return Err(cursor.error("`in`"));
        }
        let extent = cursor.count("the number of iterations")?;
        let mut kind = LoopKind::Serial;
        if let Some(word) = cursor.peek_name().filter(|&word| word != "by") {
            kind = kind_named(word).ok_or_else(|| cursor.error("the kind of a loop, `by`, `,` or `:`"))?;
            cursor.at += 1;
        }
        let instruction = match cursor.eat_word("by") {
            true => Some(cursor.name("the name of an instruction")?.to_string()),
            false => None,
        };
        let var = self.nest.pool.vars.push(Variable { name: name.clone(), extent });
        self.loops.push((name, var));
        Ok((var, kind, instruction))
    }

    /// `block: buffer[index] = value if condition`
    fn store(&mut self, cursor: &mut Cursor<'_>) -> Result<Store, ParseError> {
        let block = cursor.name("a statement")?.to_string();
        cursor.expect(":")?;
        let buffer = self.buffer(cursor)?;
        let index = self.index(cursor)?;
        let combine = self.sign(cursor)?;
        let value = self.expr(cursor, 0)?;
        let condition = if cursor.eat_word("if") { Some(self.expr(cursor, 0)?) } else { None };
        cursor.expect_end()?;
        Ok(Store { block, buffer, index, value, combine, condition })
    }

    fn sign(&self, cursor: &mut Cursor<'_>) -> Result<Option<Combiner>, ParseError> {
        if cursor.eat("=") {
            return Ok(None);
        }
        let combiner = match cursor.peek() {
            Some(Token::Symbol("+=")) => Some(Combiner::Add),
            Some(Token::Symbol("*=")) => Some(Combiner::Mul),
            Some(Token::Name(name)) if name == "min" => Some(Combiner::Min),
            Some(Token::Name(name)) if name == "max" => Some(Combiner::Max),
            Some(Token::Name(_) | Token::Number(..) | Token::Symbol(_)) | None => None,
        };
        let combiner = combiner.ok_or_else(|| cursor.error("`=`, `+=`, `*=`, `min=` or `max=`"))?;
        cursor.at += 1;
        if matches!(combiner, Combiner::Min | Combiner::Max) {
            cursor.expect("=")?;
        }
        Ok(Some(combiner))
    }

    fn buffer(&self, cursor: &mut Cursor<'_>) -> Result<BufferId, ParseError> {
        let id = cursor.peek_name().and_then(|name| self.buffers.get(name).copied());
        let id = id.ok_or_else(|| cursor.error("the name of a buffer"))?;
        cursor.at += 1;
        Ok(id)
    }

    /// `[i, j]`, or nothing for a scalar.
    fn index(&mut self, cursor: &mut Cursor<'_>) -> Result<Vec<ExprId>, ParseError> {
        if cursor.eat("[") { self.list(cursor, "]") } else { Ok(vec![]) }
    }

    /// Expressions up to `close`.
    fn list(&mut self, cursor: &mut Cursor<'_>, close: &str) -> Result<Vec<ExprId>, ParseError> {
        let mut list = vec![self.expr(cursor, 0)?];
        while cursor.eat(",") {
            list.push(self.expr(cursor, 0)?);
        }
        cursor.expect(close)?;
        Ok(list)
    }

    /// An expression whose operators bind at least as strongly as `level`.
    fn expr(&mut self, cursor: &mut Cursor<'_>, level: u8) -> Result<ExprId, ParseError> {
        cursor.depth += 1;
        if cursor.depth > MAX_DEPTH {
            return Err(cursor.error(format!("at most {MAX_DEPTH} brackets inside of one another")));
        }
        let mut left = self.operand(cursor)?;
        while let Some((op, strength)) = cursor.peek().and_then(infix_operator).filter(|(_, s)| *s >= level) {
            cursor.at += 1;
            let right = self.expr(cursor, strength + 1)?;
            left = self.nest.pool.intern(Expr::Binary(op, left, right));
        }
        cursor.depth -= 1;
        Ok(left)
    }

    fn operand(&mut self, cursor: &mut Cursor<'_>) -> Result<ExprId, ParseError> {
        if let Some(literal) = literal(cursor) {
            return Ok(self.nest.pool.intern(literal));
        }
        if cursor.eat("-") {
            cursor.depth += 1;
            if cursor.depth > MAX_DEPTH {
                return Err(cursor.error(format!("at most {MAX_DEPTH} signs before one another")));
            }
            let operand = self.operand(cursor)?;
            cursor.depth -= 1;
            return Ok(self.nest.pool.intern(Expr::Unary(UnaryOp::Neg, operand)));
        }
        if cursor.eat("(") {
            let inner = self.expr(cursor, 0)?;
            cursor.expect(")")?;
            return Ok(inner);
        }
        let Some(name) = cursor.peek_name() else { return Err(cursor.error("an expression")) };
        if matches!(cursor.peek_second(), Some(Token::Symbol("("))) {
            return self.call(cursor, name);
        }
        if let Some((_, var)) = self.loops.iter().rev().find(|(inner, _)| inner == name) {
            cursor.at += 1;
            return Ok(self.nest.pool.var(*var));
        }
        let Ok(buffer) = self.buffer(cursor) else {
            return Err(cursor.error("an operation, or the name of a loop around this line or of a buffer"));
        };
        let index = self.index(cursor)?;
        Ok(self.nest.pool.load(buffer, &index))
    }

    /// `operation(operand, ...)`
    fn call(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<ExprId, ParseError> {
        let at = cursor.at;
        cursor.at += 2;
        let operands = self.list(cursor, ")")?;
        let expr = match (name, operands.as_slice()) {
            ("select", &[condition, a, b]) => Some(Expr::Select(condition, a, b)),
            ("guard", &[condition, a]) => Some(Expr::Guard(condition, a)),
            (_, &[a]) => match DType::from_name(name) {
                Some(dtype) => Some(Expr::Cast(dtype, a)),
                None => UnaryOp::ALL.into_iter().find(|op| op.name() == name).map(|op| Expr::Unary(op, a)),
            },
            (_, &[a, b]) => {
                BinaryOp::ALL.into_iter().find(|op| op.name() == name).map(|op| Expr::Binary(op, a, b))
            }
            (_, _) => None,
        };
        let expr = expr.ok_or_else(|| {
            let place = Cursor { line: cursor.line, at, depth: 0 };
            place.error(format!("an operation of {} operands", operands.len()))
        })?;
        Ok(self.nest.pool.intern(expr))
    }
}

/// What a line declares, when it is that of a parameter.
fn param_role(cursor: &Cursor<'_>) -> Option<Role> {
    let Some(Token::Name(_)) = cursor.peek_second() else { return None };
    match cursor.peek_name()? {
        "in" => Some(Role::Input),
        "const" => Some(Role::Constant),
        "out" => Some(Role::Output),
        _ => None,
    }
}

fn local_kind(word: &str) -> Option<(Role, Scope)> {
    match word {
        "packed" => Some((Role::Packed, Scope::Global)),
        "global" => Some((Role::Local, Scope::Global)),
        "workgroup" => Some((Role::Local, Scope::Workgroup)),
        "register" => Some((Role::Local, Scope::Register)),
        _ => None,
    }
}

fn infix_operator(token: &Token) -> Option<(BinaryOp, u8)> {
    let text = match token {
        Token::Name(name) => name.as_str(),
        Token::Symbol(symbol) => symbol,
        Token::Number(..) => return None,
    };
    BinaryOp::ALL
        .into_iter()
        .find_map(|op| op.infix().filter(|(symbol, _)| *symbol == text).map(|(_, strength)| (op, strength)))
}

/// Steps over a constant, its sign included, if one is next.
fn literal(cursor: &mut Cursor<'_>) -> Option<Expr> {
    let negative = matches!(cursor.peek(), Some(Token::Symbol("-")));
    let token = if negative { cursor.peek_second() } else { cursor.peek() };
    let sign = if negative { "-" } else { "" };
    let expr = match token? {
        Token::Number(text, dtype) => number(&format!("{sign}{text}"), *dtype)?,
        Token::Name(name) if name == "true" && !negative => Expr::Int(1, DType::Bool),
        Token::Name(name) if name == "false" && !negative => Expr::Int(0, DType::Bool),
        Token::Name(name) => {
            let (dtype, value) = special_float(name)?;
            Expr::Float((if negative && !value.is_nan() { -value } else { value }).to_bits(), dtype)
        }
        Token::Symbol(_) => return None,
    };
    cursor.at += 1 + usize::from(negative);
    Some(expr)
}

fn number(text: &str, dtype: Option<DType>) -> Option<Expr> {
    let float = text.contains(['.', 'e']);
    let dtype = dtype.unwrap_or(if float { DType::F32 } else { DType::I64 });
    if dtype == DType::F32 {
        Some(Expr::Float(f64::from(text.parse::<f32>().ok()?).to_bits(), dtype))
    } else if dtype.is_float() {
        Some(Expr::Float(text.parse::<f64>().ok()?.to_bits(), dtype))
    } else if dtype.is_integer() {
        Some(Expr::Int(text.parse().ok()?, dtype))
    } else {
        None
    }
}

/// `inf`, `NaN`, `inf_f16` ...
pub(super) fn special_float(name: &str) -> Option<(DType, f64)> {
    let (word, dtype) = match name.split_once('_') {
        Some((word, dtype)) => (word, DType::from_name(dtype).filter(|dtype| dtype.is_float())?),
        None => (name, DType::F32),
    };
    match word {
        "inf" => Some((dtype, f64::INFINITY)),
        "NaN" => Some((dtype, f64::NAN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn round_trip(text: &str) {
        let nest = Nest::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(nest.to_string(), text);
    }

    #[test]
    fn every_form_round_trips() {
        round_trip(
            "\
nest every.form of/text
  in    a: f32[512, 256]
  const b: i32[8]
  const s: f16
  out   y: f64[4, 4]
  prepare:
    packed p: f32[2, 3] pad 4
    for i in 2, j in 3:
      pack: p[i, j] = a[i, j]
  for i.0 in 4 workgroup.y, j.0 in 6 workgroup.x:
    workgroup tile: f32[16, 129] pad 1
    global scratch: f32[3]
    for i.1 in 16 invocation.y, j.1 in 16 invocation.x:
      register acc: f32[8, 4]
      barrier
      for k.1 in 16 unroll by fma_12x32, l in 4 vector:
        update: acc[i.1, 0] += tile[k.1, 8 * i.1 + l] * p[0, 1]
        low: acc[0, 0] min= -a[k.1, 0] if i.1 < 3 and not(j.1 >= 2) or k.1 // 4 == 1
        high: acc[0, 0] max= guard(i.1 % 4 != 2, select(true, a[0, 0], 1.0))
        product: acc[0, 0] *= pow(exp(1.5), f32(s)) - (a[0, 0] - a[1, 1]) - 2.0
      barrier: y[0, 0] = f64(acc[0, 0])
  for t in 4 parallel:
    for: y[t, 0] = f64(b[7]) / (2.5_f64 / 3.0_f64)
  register: y[0, 1] = 1.0_f64
",
        );
    }

    #[test]
    fn every_constant_round_trips() {
        let mut nest = Nest::new("constants");
        let mut add = |expr: Expr| {
            let value = nest.pool.intern(expr);
            let dtype = nest.pool.dtype(value);
            let buffer = nest.pool.buffers.push(Buffer {
                name: format!("b{}", nest.params.len()),
                dtype,
                shape: vec![],
                scope: Scope::Global,
                role: Role::Output,
                row_padding: 0,
            });
            nest.params.push(buffer);
            for value in [value, nest.pool.intern(Expr::Unary(UnaryOp::Neg, value))] {
                let block = format!("s{}", nest.body.len());
                let index = vec![];
                nest.body.push(Stmt::Store(Store {
                    block,
                    buffer,
                    index,
                    value,
                    combine: None,
                    condition: None,
                }));
            }
        };
        for dtype in DType::ALL {
            if dtype.is_float() {
                for value in
                    [0.0, -0.0, 1.0, 0.1, -1e-7, 1e20, 6.1e-5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN]
                {
                    let mut pool = crate::expr::ExprPool::default();
                    let id = pool.constant(value, dtype);
                    add(pool.get(id).clone());
                }
            } else if dtype == DType::Bool {
                add(Expr::Int(0, dtype));
                add(Expr::Int(1, dtype));
            } else {
                for value in [0, 1, -1, i64::MAX, i64::MIN] {
                    add(Expr::Int(value, dtype));
                }
            }
        }
        let parsed = Nest::parse(&nest.to_string()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.to_string(), nest.to_string());
        assert_eq!(parsed.structural_hash(), nest.structural_hash());
        let values = |nest: &Nest| {
            let mut values = vec![];
            nest.visit_stores(&mut |store| values.push(nest.pool.get(store.value).clone()));
            values.into_iter().filter(|expr| !matches!(expr, Expr::Unary(..))).collect::<Vec<_>>()
        };
        assert_eq!(values(&parsed), values(&nest));
    }

    #[test]
    fn ids_do_not_change_the_hash() {
        let text =
            "nest a\n  out   y: f32[2]\n  for i in 2:\n    s: y[i] = 1.0\n  for j in 2:\n    t: y[j] = 2.0\n";
        let nest = Nest::parse(text).unwrap();
        let mut swapped = nest.clone();
        swapped.body.reverse();
        let reparsed = Nest::parse(&swapped.to_string()).unwrap();
        assert_eq!(swapped.structural_hash(), reparsed.structural_hash());
        assert_ne!(swapped.structural_hash(), nest.structural_hash());
    }

    #[track_caller]
    fn refuses(text: &str, expected: Expect) {
        expected.assert_eq(&Nest::parse(text).unwrap_err().to_string());
    }

    #[test]
    fn errors_say_where_and_what() {
        refuses("", expect!["line 1, column 1: expected `nest NAME`, found nothing"]);
        refuses("nets a", expect!["line 1, column 1: expected `nest NAME`, found `nets`"]);
        refuses("nest a\n  in x: f33[2]", expect!["line 2, column 9: expected an element type, found `f33`"]);
        refuses(
            "nest a\n  in x: f32[2]\n  in x: f32",
            expect!["line 3, column 6: expected a name that no buffer has yet, found `x`"],
        );
        let body = |line: &str| format!("nest a\n  out y: f32[2]\n  for i in 2:\n    {line}");
        refuses(
            &body("s: y[i] = "),
            expect!["line 4, column 14: expected an expression, found the end of the line"],
        );
        refuses(
            &body("s: y[i] = 1.0 +* 2.0"),
            expect!["line 4, column 20: expected an expression, found `*`"],
        );
        refuses(
            &body("s: y[i] = z"),
            expect![
                "line 4, column 15: expected an operation, or the name of a loop around this line or of a buffer, found `z`"
            ],
        );
        refuses(
            &body("s: y[i] = foo(i)"),
            expect!["line 4, column 15: expected an operation of 1 operands, found `foo`"],
        );
        refuses(&body("s: y[i = 1.0"), expect!["line 4, column 12: expected `]`, found `=`"]);
        refuses(
            &body("s: y[i] ~ 1.0"),
            expect!["line 4, column 13: expected a name, a number or an operator, found `~`"],
        );
        refuses(&body("s: y[i] = 1x"), expect!["line 4, column 15: expected a number, found `1x`"]);
        refuses(
            &body("for j in 2 sideways:"),
            expect!["line 4, column 16: expected the kind of a loop, `by`, `,` or `:`, found `sideways`"],
        );
        refuses(
            &body("s: y[i] = 1.0\n      t: y[i] = 1.0"),
            expect!["line 5, column 7: expected 4 spaces before the line, found `t`"],
        );
        refuses(
            &body("s: y[i] = 1.0\n q: y[0] = 1.0"),
            expect!["line 5, column 2: expected the end of the nest, found `q`"],
        );
        refuses(
            "nest a\n  out y: f32[2]\n  for i in 2:\n    s: y[i] = 1.0\n  t: y[i] = 1.0",
            expect![
                "line 5, column 8: expected an operation, or the name of a loop around this line or of a buffer, found `i`"
            ],
        );
    }

    #[test]
    fn deep_nesting_is_refused() {
        let deep =
            format!("nest a\n  out y: f32\n  s: y = {}1.0{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(Nest::parse(&deep).is_err());
        let signs = format!("nest a\n  out y: f32\n  s: y = {}y", "-".repeat(100_000));
        assert!(Nest::parse(&signs).is_err());
        let loops = vec!["i in 1"; 100_000].join(", ");
        assert!(Nest::parse(&format!("nest a\n  for {loops}:")).is_err());
    }

    /// Whatever a damaged text is, the parser answers.
    #[test]
    fn damaged_text_never_panics() {
        let text = "nest a\n  in    x: f32[2, 3] pad 1\n  out   y: f32[2]\n  for i in 2 parallel, k.1 in 3:\n    register t: i8\n    s: y[i] += guard(i < 1, x[i, k.1]) * -2.5e1_f16 if i // 2 == 0\n    barrier\n";
        let mut rng = crate::base::Random::new(3);
        for _ in 0..20_000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..rng.below(4) + 1 {
                let at = rng.below(bytes.len());
                match rng.below(3) {
                    0 => drop(bytes.remove(at)),
                    1 => bytes.insert(at, *rng.pick(text.as_bytes())),
                    _ => bytes[at] = rng.below(128) as u8,
                }
            }
            if let Ok(nest) = Nest::parse(&String::from_utf8_lossy(&bytes)) {
                let _ = nest.verify();
                assert_eq!(Nest::parse(&nest.to_string()).map(|nest| nest.to_string()), Ok(nest.to_string()));
            }
        }
    }
}
