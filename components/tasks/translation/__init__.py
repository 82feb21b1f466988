"""Translation: one text into another (Vaswani et al. 2017), judged by BLEU and chrF."""
