"""Several machines that train together: who they are, how they meet, and how a failure of one ends the others."""
