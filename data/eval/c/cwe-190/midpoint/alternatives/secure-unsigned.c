    return (int)(((unsigned)low + (unsigned)high) >> 1);
}
