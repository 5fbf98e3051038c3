#include "driver.h"

bool deposit(int *balance, int amount);

int main(int argc, char **argv)
{
    int balance = atoi(argv[1]);
    bool done = deposit(&balance, atoi(argv[2]));
    printf("%d %d\n", done, balance);
    return 0;
}
