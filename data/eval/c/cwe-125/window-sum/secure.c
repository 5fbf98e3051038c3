    for (size_t i = start; i < count && width > 0; i++, width--)
        sum += samples[i];
    return sum;
}
