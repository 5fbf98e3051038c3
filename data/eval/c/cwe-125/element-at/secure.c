    if (index < 0 || index >= count)
        return fallback;
    return values[index];
}
