//! SQLite's expressions, parsed by its precedences: <https://www.sqlite.org/lang_expr.html>, section 2.

use super::lex::{Token, What, tokens};

#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
    Blob(Vec<u8>),
    /// A name; in double quotes it is a text if there is no such column.
    Column {
        name: String,
        quoted: bool,
    },
    /// CURRENT_TIME, CURRENT_DATE, CURRENT_TIMESTAMP
    Current(String),
    Unary(&'static str, Box<Self>),
    Binary(&'static str, Box<Self>, Box<Self>),
    /// IS and IS NOT
    Is {
        left: Box<Self>,
        right: Box<Self>,
        negated: bool,
    },
    Between {
        value: Box<Self>,
        low: Box<Self>,
        high: Box<Self>,
        negated: bool,
    },
    In {
        value: Box<Self>,
        list: Vec<Self>,
        negated: bool,
    },
    Like {
        value: Box<Self>,
        pattern: Box<Self>,
        negated: bool,
    },
    Case {
        subject: Option<Box<Self>>,
        branches: Vec<(Self, Self)>,
        otherwise: Option<Box<Self>>,
    },
    Cast(Box<Self>, String),
    Call {
        name: String,
        arguments: Vec<Self>,
    },
    Collate(Box<Self>, String),
}

/// Why it was not understood.
pub type Why = String;

/// Deeper nesting is refused, not followed.
const DEEPEST: usize = 100;

/// Parses one expression.
///
/// # Errors
/// With what is not understood.
pub fn parse(sql: &str) -> Result<Expression, Why> {
    let tokens = tokens(sql);
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let expression = parser.expression(0)?;
    match parser.peek() {
        None => Ok(expression),
        Some(token) => Err(format!("`{}` was not expected", &sql[token.from..token.to])),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

/// Binding of a binary operator, and its name; loosest first.
fn binary(token: &Token) -> Option<(u8, &'static str)> {
    Some(match &token.what {
        What::Sign(sign) => match *sign {
            "=" | "==" => (4, "="),
            "<>" | "!=" => (4, "<>"),
            "<" => (5, "<"),
            "<=" => (5, "<="),
            ">" => (5, ">"),
            ">=" => (5, ">="),
            "&" => (6, "&"),
            "|" => (6, "|"),
            "<<" => (6, "<<"),
            ">>" => (6, ">>"),
            "+" => (7, "+"),
            "-" => (7, "-"),
            "*" => (8, "*"),
            "/" => (8, "/"),
            "%" => (8, "%"),
            "||" => (9, "||"),
            _ => return None,
        },
        What::Word(word) if word.eq_ignore_ascii_case("OR") => (1, "OR"),
        What::Word(word) if word.eq_ignore_ascii_case("AND") => (2, "AND"),
        _ => return None,
    })
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<&'a Token, Why> {
        let token = self.tokens.get(self.at).ok_or("it ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn takes(&mut self, keyword: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is(keyword));
        self.at += usize::from(found);
        found
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_sign(sign));
        self.at += usize::from(found);
        found
    }

    fn must(&mut self, found: bool, what: &str) -> Result<(), Why> {
        if found { Ok(()) } else { Err(format!("{what} is missing")) }
    }

    fn expression(&mut self, least: u8) -> Result<Expression, Why> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("it nests too deep".to_owned());
        }
        let mut left = self.prefix()?;
        while let Some(token) = self.peek() {
            if let Some((binding, operator)) = binary(token) {
                if binding < least {
                    break;
                }
                self.at += 1;
                let right = self.expression(binding + 1)?;
                left = Expression::Binary(operator, Box::new(left), Box::new(right));
            } else if least <= 4 {
                match self.postfix(left)? {
                    Ok(more) => left = more,
                    Err(same) => {
                        left = same;
                        break;
                    }
                }
            } else {
                break;
            }
        }
        self.depth -= 1;
        Ok(left)
    }

    /// The operators of equality's precedence that are words. Gives the left side back where there is none.
    fn postfix(&mut self, left: Expression) -> Result<Result<Expression, Expression>, Why> {
        let value = Box::new(left);
        let null = |negated| move |left| Expression::Is { left, right: Box::new(Expression::Null), negated };
        if self.takes("ISNULL") {
            return Ok(Ok(null(false)(value)));
        }
        if self.takes("NOTNULL") {
            return Ok(Ok(null(true)(value)));
        }
        if self.takes("IS") {
            let mut negated = self.takes("NOT");
            if self.takes("DISTINCT") {
                let found = self.takes("FROM");
                self.must(found, "FROM")?;
                negated = !negated;
            }
            let right = Box::new(self.expression(5)?);
            return Ok(Ok(Expression::Is { left: value, right, negated }));
        }
        let before = self.at;
        let negated = self.takes("NOT");
        if negated && self.takes("NULL") {
            return Ok(Ok(null(true)(value)));
        }
        if self.takes("BETWEEN") {
            let low = Box::new(self.expression(5)?);
            let found = self.takes("AND");
            self.must(found, "AND")?;
            let high = Box::new(self.expression(5)?);
            return Ok(Ok(Expression::Between { value, low, high, negated }));
        }
        if self.takes("IN") {
            let found = self.takes_sign("(");
            self.must(found, "the list of IN")?;
            if self.peek().is_some_and(|token| token.is("SELECT")) {
                return Err("a subquery".to_owned());
            }
            let list = self.list()?;
            return Ok(Ok(Expression::In { value, list, negated }));
        }
        if self.takes("LIKE") {
            let pattern = Box::new(self.expression(5)?);
            if self.takes("ESCAPE") {
                return Err("LIKE with ESCAPE".to_owned());
            }
            return Ok(Ok(Expression::Like { value, pattern, negated }));
        }
        if let Some(word) = ["GLOB", "REGEXP", "MATCH"].into_iter().find(|word| self.takes(word)) {
            return Err(format!("{word} has no equal in PostgreSQL"));
        }
        self.at = before;
        Ok(Err(*value))
    }

    /// Expressions up to the closing bracket.
    fn list(&mut self) -> Result<Vec<Expression>, Why> {
        let mut list = Vec::new();
        if self.takes_sign(")") {
            return Ok(list);
        }
        loop {
            list.push(self.expression(0)?);
            if self.takes_sign(")") {
                return Ok(list);
            }
            let found = self.takes_sign(",");
            self.must(found, "`)`")?;
        }
    }

    fn prefix(&mut self) -> Result<Expression, Why> {
        if self.takes("NOT") {
            return Ok(Expression::Unary("NOT", Box::new(self.expression(4)?)));
        }
        for sign in ["-", "+", "~"] {
            if self.takes_sign(sign) {
                // 9223372036854775808 is no integer, and its negative is.
                if sign == "-"
                    && let Some(Token { what: What::Integer(digits), .. }) = self.peek()
                    && let Ok(number) = format!("-{digits}").parse()
                {
                    self.at += 1;
                    return self.collated(Expression::Integer(number));
                }
                let operand = self.expression(10)?;
                return Ok(Expression::Unary(sign, Box::new(operand)));
            }
        }
        let primary = self.primary()?;
        self.collated(primary)
    }

    fn collated(&mut self, mut expression: Expression) -> Result<Expression, Why> {
        while self.takes("COLLATE") {
            let name = self.next()?.name().ok_or("a collation's name is missing")?.to_owned();
            expression = Expression::Collate(Box::new(expression), name);
        }
        Ok(expression)
    }

    fn primary(&mut self) -> Result<Expression, Why> {
        let token = self.next()?;
        Ok(match &token.what {
            What::Sign("(") => {
                if self.peek().is_some_and(|token| token.is("SELECT")) {
                    return Err("a subquery".to_owned());
                }
                let inner = self.expression(0)?;
                let found = self.takes_sign(")");
                self.must(found, "`)`, or a row value stands here, which")?;
                inner
            }
            What::Integer(digits) => integer(digits),
            What::Real(digits) => Expression::Real(digits.parse().map_err(|_| format!("the number {digits}"))?),
            What::Text(text) => Expression::Text(text.clone()),
            What::Blob(bytes) => Expression::Blob(bytes.clone()),
            What::Quoted(name) => self.column(name.clone(), true)?,
            What::Word(word) => self.word(word)?,
            What::Sign(sign) => return Err(format!("`{sign}` was not expected")),
            What::Other(c) => return Err(format!("`{c}` was not expected")),
        })
    }

    /// A column, maybe with its table before it.
    fn column(&mut self, name: String, quoted: bool) -> Result<Expression, Why> {
        if self.takes_sign(".") {
            let name = self.next()?.name().ok_or("a column's name is missing")?.to_owned();
            return Ok(Expression::Column { name, quoted: false });
        }
        Ok(Expression::Column { name, quoted })
    }

    fn word(&mut self, word: &str) -> Result<Expression, Why> {
        let upper = word.to_ascii_uppercase();
        match upper.as_str() {
            "NULL" => return Ok(Expression::Null),
            "TRUE" => return Ok(Expression::Integer(1)),
            "FALSE" => return Ok(Expression::Integer(0)),
            "CURRENT_TIME" | "CURRENT_DATE" | "CURRENT_TIMESTAMP" => return Ok(Expression::Current(upper)),
            "CASE" => return self.case(),
            "EXISTS" | "SELECT" => return Err("a subquery".to_owned()),
            "RAISE" => return Err("RAISE".to_owned()),
            "CAST" if self.takes_sign("(") => {
                let inner = self.expression(0)?;
                let found = self.takes("AS");
                self.must(found, "AS")?;
                let mut name = String::new();
                while !self.takes_sign(")") {
                    if let Some(word) = self.next()?.name() {
                        name.push_str(&word.to_ascii_uppercase());
                    }
                }
                return Ok(Expression::Cast(Box::new(inner), name));
            }
            _ => {}
        }
        if self.takes_sign("(") {
            if self.takes_sign("*") {
                return Err(format!("{word}(*)"));
            }
            let arguments = self.list()?;
            return Ok(Expression::Call { name: word.to_ascii_lowercase(), arguments });
        }
        self.column(word.to_owned(), false)
    }

    fn case(&mut self) -> Result<Expression, Why> {
        let subject =
            if self.peek().is_some_and(|token| token.is("WHEN")) { None } else { Some(Box::new(self.expression(0)?)) };
        let mut branches = Vec::new();
        while self.takes("WHEN") {
            let when = self.expression(0)?;
            let found = self.takes("THEN");
            self.must(found, "THEN")?;
            branches.push((when, self.expression(0)?));
        }
        let otherwise = if self.takes("ELSE") { Some(Box::new(self.expression(0)?)) } else { None };
        let found = self.takes("END");
        self.must(found, "END")?;
        Ok(Expression::Case { subject, branches, otherwise })
    }
}

/// Too large for 64 bits it is a REAL; in hexadecimal it wraps around.
fn integer(digits: &str) -> Expression {
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16)
            .map_or(Expression::Null, |bits| Expression::Integer(i64::from_ne_bytes(bits.to_ne_bytes())));
    }
    match digits.parse::<i64>() {
        Ok(number) => Expression::Integer(number),
        Err(_) => Expression::Real(digits.parse().unwrap_or(f64::INFINITY)),
    }
}
