    for (size_t i = 0; i < width; i++)
        sum += samples[start + i];
    return sum;
}
