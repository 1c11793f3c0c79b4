//! stub
/// What an id looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdShape {}
impl IdShape {
    pub(crate) fn of_type<K>() -> Self {
        Self {}
    }
    pub(crate) fn render(&self, b: &[u8]) -> String {
        b.escape_ascii().to_string()
    }
}
