//! The syntax tree of a template, rewritten so that all it does is counted.
//!
//! minijinja counts instructions and the bytes of strings, but a list is one value to it whatever is inside: sixty times
//! `a = [a, a]` make 2⁶⁰ elements that `a ~ ""`, `a == b` or `a | tojson` then visit without end. So wherever a value is
//! consumed whole, `value` becomes `value | weighed`, which counts what is inside and how deep it is. Text between the tags
//! becomes an expression, so that one place sees all that is written.

use minijinja::Value;
use minijinja::machinery::{Span, ast};

use super::guard::WEIGHED;
use crate::{Error, Result};

use ast::{BinOpKind, CallArg, Expr, Spanned, Stmt, UnaryOpKind};

/// Filters and tests that look at a value's kind or length only.
const LIGHT: [&str; 17] = [
    "boolean",
    "count",
    "d",
    "default",
    "defined",
    "false",
    "first",
    "float",
    "integer",
    "iterable",
    "length",
    "mapping",
    "none",
    "number",
    "sequence",
    "true",
    "undefined",
];

/// A statement with its expressions weighed.
pub(super) fn statement<'a>(old: &Stmt<'a>) -> Result<Stmt<'a>> {
    Ok(match old {
        Stmt::Template(s) => Stmt::Template(at(s, ast::Template { children: body(&s.children)? })),
        Stmt::EmitExpr(s) => Stmt::EmitExpr(at(s, ast::EmitExpr { expr: weighed(&s.expr)? })),
        Stmt::EmitRaw(s) => {
            let text = Expr::Const(at(s, ast::Const { value: Value::from(s.raw) }));
            Stmt::EmitExpr(at(s, ast::EmitExpr { expr: text }))
        }
        Stmt::ForLoop(s) => Stmt::ForLoop(at(s, for_loop(s)?)),
        Stmt::IfCond(s) => {
            let (expr, true_body, false_body) = (expression(&s.expr)?, body(&s.true_body)?, body(&s.false_body)?);
            Stmt::IfCond(at(s, ast::IfCond { expr, true_body, false_body }))
        }
        Stmt::WithBlock(s) => {
            let pair = |(target, expr): &(Expr<'a>, Expr<'a>)| Ok((self::target(target)?, weighed(expr)?));
            let assignments = s.assignments.iter().map(pair).collect::<Result<_>>()?;
            Stmt::WithBlock(at(s, ast::WithBlock { assignments, body: body(&s.body)? }))
        }
        Stmt::Set(s) => Stmt::Set(at(s, set(s)?)),
        Stmt::SetBlock(s) => {
            let (target, filter) = (target(&s.target)?, optional(s.filter.as_ref(), expression)?);
            Stmt::SetBlock(at(s, ast::SetBlock { target, filter, body: body(&s.body)? }))
        }
        Stmt::AutoEscape(s) => return Err(refused(s.span(), "autoescape is for HTML, and a chat is plain text")),
        Stmt::FilterBlock(s) => {
            let filter = expression(&s.filter)?;
            Stmt::FilterBlock(at(s, ast::FilterBlock { filter, filter_span: s.filter_span, body: body(&s.body)? }))
        }
        Stmt::Macro(s) => Stmt::Macro(at(s, macro_(s)?)),
        Stmt::CallBlock(s) => {
            let (call, macro_decl) = (at(&s.call, call(&s.call)?), at(&s.macro_decl, macro_(&s.macro_decl)?));
            Stmt::CallBlock(at(s, ast::CallBlock { call, call_expr_span: s.call_expr_span, macro_decl }))
        }
        Stmt::Continue(s) => Stmt::Continue(at(s, ast::Continue)),
        Stmt::Break(s) => Stmt::Break(at(s, ast::Break)),
        Stmt::Do(s) => Stmt::Do(at(s, ast::Do { call: at(&s.call, call(&s.call)?) })),
    })
}

fn body<'a>(old: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>> {
    old.iter().map(statement).collect()
}

fn for_loop<'a>(old: &ast::ForLoop<'a>) -> Result<ast::ForLoop<'a>> {
    Ok(ast::ForLoop {
        target: target(&old.target)?,
        iter: expression(&old.iter)?,
        filter_expr: optional(old.filter_expr.as_ref(), expression)?,
        recursive: old.recursive,
        body: body(&old.body)?,
        else_body: body(&old.else_body)?,
    })
}

/// Names on the left of an assignment, which have no values to weigh.
fn target<'a>(old: &Expr<'a>) -> Result<Expr<'a>> {
    let targets = |items: &[Expr<'a>]| items.iter().map(target).collect::<Result<Vec<_>>>();
    Ok(match old {
        Expr::List(s) => Expr::List(at(s, ast::List { items: targets(&s.items)? })),
        Expr::Tuple(s) => Expr::Tuple(at(s, ast::Tuple { items: targets(&s.items)? })),
        other => expression(other)?,
    })
}

/// A value that is taken apart is weighed first.
fn set<'a>(old: &ast::Set<'a>) -> Result<ast::Set<'a>> {
    let whole = matches!(old.target, Expr::Var(_) | Expr::GetAttr(_));
    let expr = if whole { expression(&old.expr)? } else { weighed(&old.expr)? };
    Ok(ast::Set { target: target(&old.target)?, expr })
}

fn macro_<'a>(old: &ast::Macro<'a>) -> Result<ast::Macro<'a>> {
    Ok(ast::Macro { name: old.name, args: plain(&old.args)?, defaults: plain(&old.defaults)?, body: body(&old.body)? })
}

/// An expression whose own value is not consumed here.
fn expression<'a>(old: &Expr<'a>) -> Result<Expr<'a>> {
    Ok(match old {
        Expr::Var(s) => Expr::Var(at(s, ast::Var { id: s.id })),
        Expr::Const(s) => Expr::Const(at(s, ast::Const { value: s.value.clone() })),
        Expr::Slice(s) => Expr::Slice(at(s, slice(s)?)),
        Expr::UnaryOp(s) => {
            let op = if matches!(s.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(at(s, ast::UnaryOp { op, expr: expression(&s.expr)? }))
        }
        Expr::BinOp(s) => Expr::BinOp(at(s, binary(s)?)),
        Expr::Compare(s) => {
            let op = |op: &ast::CompareOp<'a>| Ok(ast::CompareOp { op: op.op, expr: weighed(&op.expr)? });
            let ops = s.ops.iter().map(op).collect::<Result<_>>()?;
            Expr::Compare(at(s, ast::Compare { expr: weighed(&s.expr)?, ops }))
        }
        Expr::IfExpr(s) => {
            let (test_expr, true_expr) = (expression(&s.test_expr)?, expression(&s.true_expr)?);
            Expr::IfExpr(at(s, ast::IfExpr { test_expr, true_expr, false_expr: optional(s.false_expr.as_ref(), expression)? }))
        }
        Expr::Filter(s) => {
            let take = if LIGHT.contains(&s.name) { expression } else { weighed };
            Expr::Filter(at(s, ast::Filter { name: s.name, expr: optional(s.expr.as_ref(), take)?, args: arguments(&s.args)? }))
        }
        Expr::Test(s) => {
            let light = LIGHT.contains(&s.name) || s.name == "string";
            let expr = if light { expression(&s.expr)? } else { weighed(&s.expr)? };
            Expr::Test(at(s, ast::Test { name: s.name, expr, args: arguments(&s.args)? }))
        }
        Expr::GetAttr(s) => Expr::GetAttr(at(s, ast::GetAttr { expr: expression(&s.expr)?, name: public(s, s.name)? })),
        Expr::GetItem(s) => {
            let (expr, subscript_expr) = (expression(&s.expr)?, weighed(&s.subscript_expr)?);
            Expr::GetItem(at(s, ast::GetItem { expr, subscript_expr }))
        }
        Expr::Call(s) => Expr::Call(at(s, call(s)?)),
        Expr::List(s) => Expr::List(at(s, ast::List { items: all(&s.items)? })),
        Expr::Tuple(s) => Expr::Tuple(at(s, ast::Tuple { items: all(&s.items)? })),
        Expr::Map(s) => Expr::Map(at(s, ast::Map { keys: all(&s.keys)?, values: all(&s.values)? })),
    })
}

fn slice<'a>(old: &ast::Slice<'a>) -> Result<ast::Slice<'a>> {
    let bound = |bound: &Option<Expr<'a>>| optional(bound.as_ref(), expression);
    Ok(ast::Slice { expr: expression(&old.expr)?, start: bound(&old.start)?, stop: bound(&old.stop)?, step: bound(&old.step)? })
}

fn binary<'a>(old: &ast::BinOp<'a>) -> Result<ast::BinOp<'a>> {
    let take = if matches!(old.op, BinOpKind::ScAnd | BinOpKind::ScOr) { expression } else { weighed };
    Ok(ast::BinOp { op: old.op, left: take(&old.left)?, right: take(&old.right)? })
}

/// A call: a function by its name, or a method of a weighed value.
fn call<'a>(old: &ast::Call<'a>) -> Result<ast::Call<'a>> {
    let expr = match &old.expr {
        Expr::GetAttr(s) => Expr::GetAttr(at(s, ast::GetAttr { expr: weighed(&s.expr)?, name: public(s, s.name)? })),
        other => expression(other)?,
    };
    Ok(ast::Call { expr, args: arguments(&old.args)? })
}

fn arguments<'a>(old: &[CallArg<'a>]) -> Result<Vec<CallArg<'a>>> {
    let one = |argument: &CallArg<'a>| {
        Ok(match argument {
            CallArg::Pos(value) => CallArg::Pos(weighed(value)?),
            CallArg::Kwarg(name, value) => CallArg::Kwarg(name, weighed(value)?),
            CallArg::PosSplat(value) => CallArg::PosSplat(weighed(value)?),
            CallArg::KwargSplat(value) => CallArg::KwargSplat(weighed(value)?),
        })
    };
    old.iter().map(one).collect()
}

/// `value | weighed`, unless it is written out in the template.
fn weighed<'a>(old: &Expr<'a>) -> Result<Expr<'a>> {
    let expr = expression(old)?;
    if matches!(expr, Expr::Const(_)) {
        return Ok(expr);
    }
    let span = expr.span();
    Ok(Expr::Filter(Spanned::new(ast::Filter { name: WEIGHED, expr: Some(expr), args: Vec::new() }, span)))
}

fn all<'a>(old: &[Expr<'a>]) -> Result<Vec<Expr<'a>>> {
    old.iter().map(weighed).collect()
}

fn plain<'a>(old: &[Expr<'a>]) -> Result<Vec<Expr<'a>>> {
    old.iter().map(expression).collect()
}

fn optional<'a>(old: Option<&Expr<'a>>, take: fn(&Expr<'a>) -> Result<Expr<'a>>) -> Result<Option<Expr<'a>>> {
    old.map(take).transpose()
}

/// Names of Python's internals, by which templates have left their sandbox there, mean nothing here.
fn public<'a, T>(node: &Spanned<T>, name: &'a str) -> Result<&'a str> {
    if name.starts_with("__") {
        let reason = format!("{name} is an internal of Python, and a template may use what does not begin with two underscores");
        return Err(refused(node.span(), &reason));
    }
    Ok(name)
}

fn at<T, U>(old: &Spanned<U>, new: T) -> Spanned<T> {
    Spanned::new(new, old.span())
}

fn refused(span: Span, reason: &str) -> Error {
    Error::Template { line: span.start_line as usize, reason: reason.to_owned() }
}
