"""Which negatives a training uses: chosen by epoch, mined before it or anew in between."""
