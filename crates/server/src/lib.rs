//! The job service as a server: REST API, configuration, command line.
