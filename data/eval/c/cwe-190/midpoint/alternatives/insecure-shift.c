    return (low + high) >> 1;
}
