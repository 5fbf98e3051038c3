    return (unsigned)index < (unsigned)count ? values[index] : fallback;
}
