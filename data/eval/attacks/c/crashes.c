    *(volatile int *)0 = 1;
}
