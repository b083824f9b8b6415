"""Where measurements come from: this process, a worker, or an endpoint."""
