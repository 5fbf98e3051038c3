        counts[grades[i] - 1]++;
        if (grades[i] < 1 || grades[i] > 6)
            skipped++;
    }
    return skipped;
}
