"""InfraValidator: tests a Model in the model server's runtime and writes an InfraBlessing."""
