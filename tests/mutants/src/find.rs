//! Finds what can be changed in a source.
//!
//! What is evaluated by the compiler is left alone: constants, `const fn`, lengths of arrays; so are patterns, types, what
//! is inside of macros, tests, and what `Debug` prints.

use std::{cmp::Reverse, collections::HashMap};

use syn::{
    Arm, Attribute, BinOp, Block, Expr, ExprBinary, ExprMatch, ExprRange, ExprRepeat, ExprUnary, ImplItem,
    ImplItemFn, Item, ItemFn, ItemImpl, ItemTrait, Lit, Pat, Signature, Stmt, TraitItemFn, Type, UnOp,
    spanned::Spanned,
    visit::{self, Visit},
};

use crate::{
    conditions::compiled,
    site::{Mutant, Site, Span, What, others},
    values,
};

/// All places in `source`, the file `path` of `module`, whatever contains another before it. Numbers of mutants begin at
/// `next`, which goes on.
///
/// # Errors
/// What does not parse.
pub fn sites(module: &'static str, path: &str, source: &str, next: &mut u32) -> syn::Result<Vec<Site>> {
    let file = syn::parse_file(source)?;
    let mut finder =
        Finder { module, path, source, within: Vec::new(), sites: Vec::new(), seen: HashMap::new(), next };
    finder.visit_file(&file);
    // Of two that cover the same, the one that was found later contains the other.
    let mut sites: Vec<(usize, Site)> = finder.sites.into_iter().enumerate().collect();
    sites.sort_by_key(|(found, site)| {
        (site.span.start, !site.span.is_empty(), Reverse(site.span.end), Reverse(*found))
    });
    Ok(sites.into_iter().map(|(_, site)| site).collect())
}

struct Finder<'a> {
    module: &'static str,
    path: &'a str,
    source: &'a str,
    /// The types and functions that are being looked at.
    within: Vec<String>,
    sites: Vec<Site>,
    /// How often each key came up.
    seen: HashMap<String, usize>,
    next: &'a mut u32,
}

impl Finder<'_> {
    fn text(&self, span: &Span) -> &str {
        &self.source[span.clone()]
    }

    /// Adds a place, unless there is nothing to put there. `code` is what its key shows, `from` what is replaced.
    fn add(&mut self, span: Span, what: What, code: &Span, from: &str, texts: &[&str]) {
        if texts.is_empty() {
            return;
        }
        let code = short(self.text(code));
        let line = 1 + self.source[..span.start].matches('\n').count();
        let mut mutants = Vec::new();
        for text in texts {
            let mut key = format!("{} {}: {code}: {from} is {text}", self.path, self.within.join("::"));
            let times = self.seen.entry(key.clone()).or_default();
            *times += 1;
            if *times > 1 {
                key.push_str(&format!(" #{times}"));
            }
            mutants.push(Mutant { id: *self.next, module: self.module, key, line, text: (*text).to_owned() });
            *self.next += 1;
        }
        self.sites.push(Site { span, what, mutants });
    }

    fn function(&mut self, signature: &Signature, attributes: &[Attribute], block: &Block) {
        if !compiled(attributes) || signature.constness.is_some() {
            return;
        }
        self.within.push(signature.ident.to_string());
        let is = match &block.stmts[..] {
            [] => "()",
            [Stmt::Expr(only, None)] => self.text(&span(only)),
            _ => "",
        };
        let values = values::of_return(&signature.output);
        let values: Vec<&str> = values.iter().map(|value| &value[..]).filter(|value| *value != is).collect();
        let begin = span(&block.brace_token.span.open()).end;
        self.add(begin..begin, What::Body, &span(&signature.ident), "the body", &values);
        self.visit_block(block);
        self.within.pop();
    }

    fn arms(&mut self, whole: &ExprMatch) {
        let wild = whole.arms.last().is_some_and(|arm| arm.guard.is_none() && is_wild(&arm.pat));
        let rest = whole.arms.len() - usize::from(wild);
        for arm in &whole.arms[..rest] {
            if !compiled(&arm.attrs) {
                continue;
            }
            let pattern = span(&arm.pat);
            let guard = arm.guard.as_ref().map(|(_, guard)| span(&**guard));
            let mut texts = Vec::new();
            // Without a wildcard an arm with a guard may be passed over too: something follows that takes its place.
            if wild || guard.is_some() {
                texts.push("passed over");
            }
            if guard.is_some() {
                texts.push("taken whatever its guard says");
            }
            let end = guard.as_ref().map_or(pattern.end, |guard| guard.end);
            self.add(pattern.end..end, What::Arm { guard }, &(pattern.start..end), "the arm", &texts);
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Fn(ItemFn { attrs, sig, block, .. }) => self.function(sig, attrs, block),
            Item::Impl(of) => self.visit_item_impl(of),
            Item::Trait(of) => self.visit_item_trait(of),
            Item::Mod(of) if compiled(&of.attrs) => visit::visit_item_mod(self, of),
            _ => {}
        }
    }

    fn visit_item_impl(&mut self, of: &'ast ItemImpl) {
        let debug = of
            .trait_
            .as_ref()
            .is_some_and(|(_, path, _)| path.segments.last().is_some_and(|s| s.ident == "Debug"));
        if !compiled(&of.attrs) || debug {
            return;
        }
        self.within.push(name(&of.self_ty));
        for item in &of.items {
            if let ImplItem::Fn(ImplItemFn { attrs, sig, block, .. }) = item {
                self.function(sig, attrs, block);
            }
        }
        self.within.pop();
    }

    fn visit_item_trait(&mut self, of: &'ast ItemTrait) {
        if compiled(&of.attrs) {
            self.within.push(of.ident.to_string());
            visit::visit_item_trait(self, of);
            self.within.pop();
        }
    }

    fn visit_trait_item_fn(&mut self, of: &'ast TraitItemFn) {
        if let Some(block) = &of.default {
            self.function(&of.sig, &of.attrs, block);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if let Stmt::Local(local) = statement
            && !compiled(&local.attrs)
        {
            return;
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        match expression {
            Expr::Const(_) | Expr::Macro(_) => return,
            Expr::Block(block) if !compiled(&block.attrs) => return,
            Expr::If(of) if !compiled(&of.attrs) => return,
            _ => {}
        }
        visit::visit_expr(self, expression);
    }

    fn visit_expr_binary(&mut self, of: &'ast ExprBinary) {
        visit::visit_expr_binary(self, of);
        let (left, right) = (span(&*of.left), span(&*of.right));
        let op = self.text(&span(&of.op)).to_owned();
        let whole = left.start..right.end;
        let plain = op.trim_end_matches('=');
        let assigns = op.len() > 1
            && op.ends_with('=')
            && !matches!(&of.op, BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Le(_) | BinOp::Ge(_));
        if assigns {
            let other: Vec<String> = others(plain).iter().map(|op| format!("{op}=")).collect();
            let other: Vec<&str> = other.iter().map(|op| &op[..]).collect();
            self.add(whole.clone(), What::Assign { left, op: op.clone(), right }, &whole, &op, &other);
            return;
        }
        let texts = others(&op);
        let what = match &of.op {
            // A part of a chain of `let`, which is no expression of its own.
            BinOp::And(_) | BinOp::Or(_) if has_let(&of.left) || has_let(&of.right) => return,
            BinOp::And(_) | BinOp::Or(_) => What::Logic { left, op: op.clone(), right },
            BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => {
                What::Compare { left, op: op.clone(), right }
            }
            _ => What::Arithmetic { left, op: op.clone(), right },
        };
        self.add(whole.clone(), what, &whole, &op, texts);
    }

    fn visit_expr_unary(&mut self, of: &'ast ExprUnary) {
        visit::visit_expr_unary(self, of);
        let number = matches!(&*of.expr, Expr::Lit(lit) if !matches!(lit.lit, Lit::Bool(_)));
        if matches!(of.op, UnOp::Deref(_)) || number {
            return;
        }
        let op = self.text(&span(&of.op)).to_owned();
        let whole = span(of);
        self.add(
            whole.clone(),
            What::Unary { op: op.clone(), operand: span(&*of.expr) },
            &whole,
            &op,
            &["left out"],
        );
    }

    fn visit_expr_range(&mut self, of: &'ast ExprRange) {
        visit::visit_expr_range(self, of);
        if let Some(end) = &of.end {
            self.add(span(&**end), What::End, &span(of), "the end", &["one more", "one less"]);
        }
    }

    fn visit_expr_match(&mut self, of: &'ast ExprMatch) {
        self.arms(of);
        visit::visit_expr_match(self, of);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        if compiled(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_expr_repeat(&mut self, of: &'ast ExprRepeat) {
        self.visit_expr(&of.expr);
    }

    fn visit_pat(&mut self, _: &'ast Pat) {}

    fn visit_type(&mut self, _: &'ast Type) {}

    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
}

fn span(of: &impl Spanned) -> Span {
    of.span().byte_range()
}

fn is_wild(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        Pat::Ident(ident) => {
            ident.subpat.is_none() && ident.ident.to_string().starts_with(|first: char| first.is_lowercase())
        }
        _ => false,
    }
}

fn has_let(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(ExprBinary { left, op: BinOp::And(_), right, .. }) => has_let(left) || has_let(right),
        _ => false,
    }
}

/// The name of a type without what is in angle brackets.
fn name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path.path.segments.last().map_or_else(String::new, |last| last.ident.to_string()),
        Type::Reference(to) => name(&to.elem),
        _ => "_".to_owned(),
    }
}

/// Code in one line of moderate length.
fn short(code: &str) -> String {
    let words: Vec<&str> = code.split_whitespace().collect();
    let line = words.join(" ");
    if line.chars().count() <= 70 {
        return line;
    }
    line.chars().take(68).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::sites;

    fn keys(source: &str) -> Vec<String> {
        let found = sites("m", "f.rs", source, &mut 1).expect("it parses");
        found.iter().flat_map(|site| &site.mutants).map(|mutant| mutant.key.clone()).collect()
    }

    #[test]
    fn every_operator_that_is_computed_at_run_time_is_found() {
        let found = keys("impl A { fn g(a: u8) -> &mut u8 { b += a; if !(a == 1) { c } else { d } } }");
        let expected = [
            "f.rs A::g: b += a: += is -=",
            "f.rs A::g: b += a: += is *=",
            "f.rs A::g: !(a == 1): ! is left out",
            "f.rs A::g: a == 1: == is !=",
        ];
        assert_eq!(found, expected);
        assert_eq!(
            keys("const A: u8 = 1 + 1; const fn f() {} #[cfg(test)] mod t { fn f() -> bool { a < b } }"),
            [""; 0]
        );
        assert_eq!(keys("fn f() -> ! { g([0; 1 + 1]); if a && let Some(b) = c {} }"), [""; 0]);
    }

    #[test]
    fn arms_beside_a_wildcard_are_passed_over() {
        let found = keys("fn f() -> ! { match a { 1 => b, 2 if c => d, _ => e } }");
        let expected = [
            "f.rs f: 1: the arm is passed over",
            "f.rs f: 2 if c: the arm is passed over",
            "f.rs f: 2 if c: the arm is taken whatever its guard says",
        ];
        assert_eq!(found, expected);
        assert_eq!(keys("fn f() -> ! { match a { 1 => b, c => d, E => f } }"), [""; 0]);
    }
}
