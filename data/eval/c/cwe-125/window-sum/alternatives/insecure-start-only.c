    if (start >= count)
        return 0;
    for (size_t i = start; i < start + width; i++)
        sum += samples[i];
    return sum;
}
