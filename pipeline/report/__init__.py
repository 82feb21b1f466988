"""The HTML report of `seq2serve report`."""
