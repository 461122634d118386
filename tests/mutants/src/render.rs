//! Writes a source in which every mutant is present, behind its switch.
//!
//! The lines stay where they are. What is evaluated once is still evaluated once, in the same order, and only where it was:
//! the sides of an operator become the parts of what a `match` looks at, so that what they hold is let go when it was before.

use std::collections::BTreeSet;

use crate::site::{Mutant, Site, Span, What};

/// A source with its mutants.
#[derive(Debug, Default)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// What the bytes are there for.
    marks: Vec<(Span, Owner)>,
}

/// Whom some bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Of one mutant alone, by its number.
    Mutant(u32),
    /// Of a place, by its index.
    Site(usize),
}

impl Rendered {
    /// Whom the bytes `span` are of: the smallest part that contains them.
    #[must_use]
    pub fn owner(&self, span: &Span) -> Option<Owner> {
        let contains = |mark: &Span| mark.start <= span.start && span.end <= mark.end;
        let marks = self.marks.iter().filter(|(mark, _)| contains(mark));
        marks.min_by_key(|(mark, _)| mark.len()).map(|(_, owner)| *owner)
    }
}

/// The source with the mutants of `sites` that are not in `left_out`.
#[must_use]
pub fn render(source: &str, sites: &[Site], left_out: &BTreeSet<String>) -> Rendered {
    let mut renderer = Renderer { source, sites, left_out, out: Rendered::default() };
    renderer.part(0..source.len(), 0..sites.len());
    renderer.out
}

struct Renderer<'a> {
    source: &'a str,
    sites: &'a [Site],
    left_out: &'a BTreeSet<String>,
    out: Rendered,
}

impl Renderer<'_> {
    fn put(&mut self, text: &str) {
        self.out.text.push_str(text);
    }

    /// Text that is there for one mutant.
    fn put_for(&mut self, mutant: &Mutant, text: &str) {
        let start = self.out.text.len();
        self.put(text);
        self.out.marks.push((start..self.out.text.len(), Owner::Mutant(mutant.id)));
    }

    /// The bytes `span` of the source, with those of the sites `among` that lie in it.
    fn part(&mut self, span: Span, among: std::ops::Range<usize>) {
        let mut at = span.start;
        for index in among.clone() {
            let site = &self.sites[index];
            // Those inside of what was done already are done.
            if site.span.start < at || site.span.end > span.end {
                continue;
            }
            let kept: Vec<Mutant> =
                site.mutants.iter().filter(|mutant| !self.left_out.contains(&mutant.key)).cloned().collect();
            if kept.is_empty() {
                continue;
            }
            self.put(&self.source[at..site.span.start]);
            let start = self.out.text.len();
            self.site(index, &kept, index + 1..among.end);
            self.out.marks.push((start..self.out.text.len(), Owner::Site(index)));
            at = site.span.end;
        }
        self.put(&self.source[at..span.end]);
    }

    fn site(&mut self, index: usize, kept: &[Mutant], within: std::ops::Range<usize>) {
        let site = &self.sites[index];
        match site.what.clone() {
            What::Body => {
                for mutant in kept {
                    let (id, value) = (mutant.id, &mutant.text);
                    self.put_for(mutant, &format!(" if ::mutant_switch::on({id}) {{ return {value}; }}"));
                }
            }
            What::Compare { left, op, right } => {
                self.put("(match (&(");
                self.part(left, within.clone());
                self.put("), &(");
                self.part(right, within);
                let (first, last) = (kept[0].id, kept[kept.len() - 1].id);
                self.put(&format!(
                    ")) {{ (l, r) => if ::mutant_switch::any({first}, {last}) {{ ::mutant_switch::choose(*l {op} *r, &["
                ));
                for mutant in kept {
                    self.put_for(mutant, &format!("({}, *l {} *r),", mutant.id, mutant.text));
                }
                self.put(&format!("]) }} else {{ *l {op} *r }} }})"));
            }
            What::Arithmetic { left, op, right } => {
                self.put("(match (");
                self.part(left, within.clone());
                self.put(", ");
                self.part(right, within);
                self.put(") { (l, r) => ");
                for mutant in kept {
                    let (id, other) = (mutant.id, &mutant.text);
                    self.put_for(mutant, &format!("if ::mutant_switch::on({id}) {{ l {other} r }} else "));
                }
                self.put(&format!("{{ l {op} r }} }})"));
            }
            What::Logic { left, op, right } => {
                let same = if op == "&&" { "!=" } else { "==" };
                self.put("({ let l: bool = ");
                self.part(left, within.clone());
                self.put(&format!("; if l {same} ::mutant_switch::on({}) {{ ", kept[0].id));
                self.part(right, within);
                self.put(" } else { l } })");
            }
            What::Assign { left, op, right } => {
                let place = &self.source[left.clone()];
                self.put("(match ");
                // A block would be taken for the arms of the match.
                self.put("(");
                self.part(right, within.clone());
                self.put(") { r => ");
                for mutant in kept {
                    let (id, other) = (mutant.id, &mutant.text);
                    self.put_for(
                        mutant,
                        &format!("if ::mutant_switch::on({id}) {{ {place} {other} r }} else "),
                    );
                }
                self.put("{ ");
                self.part(left, within);
                self.put(&format!(" {op} r }} }})"));
            }
            What::Unary { op, operand } => {
                self.put("(match (");
                self.part(operand, within);
                self.put(&format!(
                    ") {{ v => if ::mutant_switch::on({}) {{ v }} else {{ {op}v }} }})",
                    kept[0].id
                ));
            }
            What::End => {
                self.put("(match (");
                self.part(site.span.clone(), within);
                self.put(") { end => ");
                for mutant in kept {
                    let op = if mutant.text == "one more" { '+' } else { '-' };
                    let id = mutant.id;
                    self.put_for(mutant, &format!("if ::mutant_switch::on({id}) {{ end {op} 1 }} else "));
                }
                self.put("{ end } })");
            }
            What::Arm { guard } => self.arm(guard, kept, within),
        }
    }

    fn arm(&mut self, guard: Option<Span>, kept: &[Mutant], within: std::ops::Range<usize>) {
        self.put(" if ");
        let passed = kept.iter().find(|mutant| mutant.text == "passed over");
        let taken = kept.iter().find(|mutant| mutant.text != "passed over");
        if let Some(mutant) = passed {
            self.put_for(mutant, &format!("!::mutant_switch::on({})", mutant.id));
        }
        let Some(guard) = guard else { return };
        if passed.is_some() {
            self.put(" && ");
        }
        self.put("(");
        if let Some(mutant) = taken {
            self.put_for(mutant, &format!("::mutant_switch::on({}) || ", mutant.id));
        }
        self.put("(");
        self.part(guard, within);
        self.put("))");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Owner, render};
    use crate::find::sites;

    fn rendered(source: &str) -> String {
        let found = sites("m", "f.rs", source, &mut 1).expect("it parses");
        render(source, &found, &BTreeSet::new()).text
    }

    #[test]
    fn operators_within_operators_are_all_there() {
        assert_eq!(
            rendered("fn f() -> ! { a && b == !c }"),
            "fn f() -> ! { ({ let l: bool = a; if l != ::mutant_switch::on(3) { \
             (match (&(b), &((match (c) { v => if ::mutant_switch::on(1) { v } else { !v } }))) { (l, r) => \
             if ::mutant_switch::any(2, 2) { ::mutant_switch::choose(*l == *r, &[(2, *l != *r),]) } else { *l == *r } }) \
             } else { l } }) }"
        );
        let arms = rendered("fn f() -> ! { match a { 1 if b => c, _ => d } }");
        assert!(
            arms.contains("1 if !::mutant_switch::on(1) && (::mutant_switch::on(2) || (b)) => c"),
            "{arms}"
        );
        assert!(rendered("fn f() { g() }").contains("{ if ::mutant_switch::on(1) { return (); } g() }"));
    }

    #[test]
    fn what_is_left_out_is_as_it_was_and_the_rest_knows_its_owner() {
        let source = "fn f() -> ! { a - b * c }";
        let found = sites("m", "f.rs", source, &mut 1).expect("it parses");
        let mut left_out: BTreeSet<String> = BTreeSet::new();
        let whole = render(source, &found, &left_out);
        let at = whole.text.find("l / r").expect("a quotient");
        let owner = whole.owner(&(at..at + 5));
        assert!(matches!(owner, Some(Owner::Mutant(_))), "{owner:?}");
        assert_eq!(whole.owner(&(0..2)), None);
        left_out.extend(found.iter().flat_map(|site| &site.mutants).map(|mutant| mutant.key.clone()));
        assert_eq!(render(source, &found, &left_out).text, source);
    }
}
