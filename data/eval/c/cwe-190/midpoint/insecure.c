    return (low + high) / 2;
}
