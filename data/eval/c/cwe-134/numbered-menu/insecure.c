        printf("%d) ", i + 1);
        printf(entries[i].label);
        printf(entries[i].enabled ? "\n" : " (off)\n");
    }
}
