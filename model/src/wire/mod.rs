//! Header views, the parser and checksums.
