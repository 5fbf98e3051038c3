    return low + (high - low) / 2;
}
