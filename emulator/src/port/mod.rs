//! What stands behind a vport.
