"""Language modelling: the continuation of a text (Radford et al. 2018), judged by bits per character."""
