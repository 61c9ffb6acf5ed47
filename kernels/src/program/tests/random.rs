//! Random programs, which must run as the naive interpreter says.
