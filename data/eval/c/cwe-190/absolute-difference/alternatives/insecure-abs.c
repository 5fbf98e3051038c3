    int difference = a - b;
    return difference < 0 ? -difference : difference;
}
