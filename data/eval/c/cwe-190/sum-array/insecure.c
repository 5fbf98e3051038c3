    int sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += numbers[i];
    return sum;
}
